"""Loudness is that of the standard, and of another implementation."""

from __future__ import annotations

import numpy as np
import pytest
from make_audio import RATE, tone

from pipeline.loudness import integrated_loudness


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("level", [0.0, -20.0, -60.0])
def test_loudness_is_that_of_the_standard(rate: int, level: float) -> None:
    # ITU-R BS.1770-4: a sine of 997 Hz at full scale on one channel reads -3.01 LUFS.
    samples = tone(997, 3, rate, 10 ** (level / 20)).astype(np.float32)
    assert integrated_loudness(samples, rate) == pytest.approx(level - 3.01, abs=0.01)


@pytest.mark.parametrize(
    ("levels", "seconds"),
    [((-36, -23, -36), (10, 60, 10)), ((-72, -36, -23, -36, -72), (10, 10, 60, 10, 10))],
    ids=["relative gate", "both gates"],
)
def test_what_is_far_quieter_than_the_rest_is_left_out(levels: tuple[int, ...], seconds: tuple[int, ...]) -> None:
    # Cases 3 and 4 of EBU Tech 3341, on one channel of the two that they have.
    parts = [tone(1_000, length, level=10 ** (level / 20)) for level, length in zip(levels, seconds, strict=True)]
    loudness = integrated_loudness(np.concatenate(parts).astype(np.float32), RATE)
    assert loudness == pytest.approx(-23 - 3.01, abs=0.1)


# A step more or less than the 20 s that are measured at a time, the shortest, and what is none of whole steps.
@pytest.mark.parametrize("seconds", [0.4, 19.9, 20.0, 20.1, 45.67])
def test_loudness_agrees_with_another_implementation(seconds: float) -> None:
    import torch
    from torchaudio.functional import loudness

    random = np.random.default_rng(0)
    swells = np.repeat(random.random(460), RATE // 10)[: round(seconds * RATE)]
    samples = 0.05 * swells * random.standard_normal(len(swells))
    expected = float(loudness(torch.from_numpy(samples)[None], RATE))
    assert integrated_loudness(samples.astype(np.float32), RATE) == pytest.approx(expected, abs=0.1)

"""Onsets and pitch classes as losses: what is alike to a listener is near, whatever plays it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.losses import chroma_distance, onset_distance
from training.losses.music import chroma

RATE = 24_000
TIME = torch.arange(2 * RATE) / RATE


def beats(*seconds: float, seed: int = 0) -> Tensor:
    """Bursts of noise [1, 1, n] that fade within a tenth of a second."""
    noise = torch.randn(len(TIME), generator=torch.Generator().manual_seed(seed))
    since = [(TIME - start).where(start <= TIME, torch.inf) for start in seconds]
    return (0.3 * noise * sum(torch.exp(-each / 0.03) for each in since))[None, None]


def chord(*pitches: int, overtones: int = 1) -> Tensor:
    """Sines [1, 1, n] of MIDI pitches, with weaker sines above them."""
    tones = [
        torch.sin(2 * torch.pi * 440 * 2 ** ((pitch - 69) / 12) * (k + 1) * TIME) / (k + 1) ** 2
        for pitch in pitches
        for k in range(overtones)
    ]
    return (0.1 * torch.stack(tones).sum(0))[None, None]


def test_the_same_onsets_are_near_whatever_plays_them() -> None:
    source = beats(0.2, 0.7, 1.2, 1.7)
    assert float(onset_distance(source, source)) == pytest.approx(0, abs=1e-2)
    alike = float(onset_distance(0.3 * beats(0.2, 0.7, 1.2, 1.7, seed=5), source))
    with_piano = float(onset_distance(source + chord(60, 64, 67), source))
    others = float(onset_distance(beats(0.45, 0.95, 1.45, 1.9), source))
    assert alike < 0.2
    assert with_piano < 0.4
    assert others > 0.9


def test_the_same_harmony_is_near_in_any_octave_and_beneath_drums() -> None:
    major, other = chord(60, 64, 67, overtones=3), chord(61, 66, 70, overtones=3)
    assert float(chroma_distance(major, major)) == pytest.approx(0, abs=1e-2)
    assert float(chroma_distance(chord(72, 76, 79), chord(60, 64, 67))) < 0.1
    assert float(chroma_distance(major + 0.1 * beats(0.1, 0.6, 1.1, 1.6), major)) < 0.2
    assert float(chroma_distance(other, major)) > 0.9
    assert float(chroma_distance(beats(0.1, 0.6, 1.1), major)) > 0.6


@pytest.mark.parametrize("pitch", range(60, 72))
def test_a_note_is_heard_as_its_own_pitch_class(pitch: int) -> None:
    assert int(chroma(chord(pitch))[0].sum(1).argmax()) == pitch % 12


@pytest.mark.parametrize("distance", [onset_distance, chroma_distance])
def test_silence_has_finite_distances_and_gradients(distance: object) -> None:
    assert callable(distance)
    for output, source in ((torch.zeros(1, 1, 48_000), beats(0.5)), (chord(60), torch.zeros(1, 1, 48_000))):
        leaf = output.clone().requires_grad_()
        loss = distance(leaf, source)
        loss.backward()
        assert torch.isfinite(loss)
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()

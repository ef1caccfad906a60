"""From float32 latents to the stored type and back: what may be stored, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shards.schema import ChannelSums

LatentsType = Literal["float16", "float32"]
Representation = Literal["float16", "float32", "codes"]
"""What a dataset stores: latents in a floating-point type, or the codes of the codec's quantizer."""

STORED_DTYPE: dict[Representation, Literal["float16", "float32", "int16"]] = {
    "float16": "float16",
    "float32": "float32",
    "codes": "int16",
}
_SIGNED, _UNSIGNED = ({size: np.dtype(f"{kind}{size}") for size in (2, 4, 8)} for kind in "iu")
_INFINITY, _NEGATIVE_INFINITY = (
    {size: int(np.array(value, f"f{size}").view(_UNSIGNED[size])) for size in (2, 4, 8)} for value in (np.inf, -np.inf)
)
"""By the bytes of a float: infinity, read as an integer."""

MINIMUM_SNR_DB = 60.0
"""A cast that loses more than this is refused; float16 gives 73.7 dB on normal data."""


def cast(latents: NDArray[np.float32], dtype: LatentsType) -> tuple[NDArray[Any], float]:
    """Cast latents [D, T] to the stored type; returns them and the signal to noise ratio in dB.

    Raises `ValueError` for values that are not finite, that the type can't hold, or that lose more than
    `MINIMUM_SNR_DB`.
    """
    require_finite(latents)
    limit = float(np.finfo(dtype).max)
    if float(np.abs(latents).max(initial=0.0)) > limit:
        raise ValueError(f"latents exceed the range of {dtype} (+-{limit:g}); use --latents float32")
    stored = latents.astype(dtype)
    snr = snr_db(latents, stored)
    if snr < MINIMUM_SNR_DB:
        raise ValueError(f"a cast to {dtype} leaves {snr:.1f} dB, under {MINIMUM_SNR_DB:g}; use --latents float32")
    return stored, snr


def require_finite(latents: NDArray[np.float32]) -> None:
    """Raise `ValueError` where latents [D, T] hold NaN or infinity."""
    if not np.isfinite(latents).all():
        raise ValueError("latents hold values that are not finite")


def snr_db(latents: NDArray[np.float32], stored: NDArray[Any]) -> float:
    """Signal to noise ratio in dB of what is stored [D, T] against latents [D, T].

    Equal arrays report 999 dB, so that the value stays a JSON number.
    """
    noise = float(np.square(latents.astype(np.float64) - stored).sum())
    signal = float(np.square(latents, dtype=np.float64).sum())
    return 999.0 if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise))


def all_finite(values: NDArray[Any]) -> bool:
    """Whether no value of a floating-point array [n] is infinite or not a number.

    Told by their bits, many times as fast: read as integers, such values are the largest of either sign.
    """
    size = values.itemsize
    if int(np.maximum.reduce(values.view(_SIGNED[size]), initial=0)) >= _INFINITY[size]:
        return False
    return int(np.maximum.reduce(values.view(_UNSIGNED[size]), initial=0)) < _NEGATIVE_INFINITY[size]


def channel_sums(latents: NDArray[Any]) -> ChannelSums:
    """Sums over time of latents [D, T], per channel, in float64."""
    values = latents.astype(np.float64)
    return ChannelSums(
        count=values.shape[1],
        total=tuple(values.sum(1).tolist()),
        squares=tuple(np.square(values).sum(1).tolist()),
        minimum=tuple(values.min(1).tolist()),
        maximum=tuple(values.max(1).tolist()),
    )


def add_sums(first: ChannelSums, second: ChannelSums) -> ChannelSums:
    """Sums of two sets of frames taken together."""
    return ChannelSums(
        count=first.count + second.count,
        total=tuple(a + b for a, b in zip(first.total, second.total, strict=True)),
        squares=tuple(a + b for a, b in zip(first.squares, second.squares, strict=True)),
        minimum=tuple(map(min, first.minimum, second.minimum)),
        maximum=tuple(map(max, first.maximum, second.maximum)),
    )


def add_by_side(first: Mapping[str, ChannelSums], second: Mapping[str, ChannelSums]) -> dict[str, ChannelSums]:
    """Add sums side by side; a side that only one of them has is taken as it is."""
    return {**first, **{side: add_sums(first[side], own) if side in first else own for side, own in second.items()}}


def statistics(sums: ChannelSums) -> dict[str, list[float]]:
    """Per-channel mean, standard deviation, RMS, minimum and maximum from sums."""
    mean = np.asarray(sums.total) / sums.count
    square = np.asarray(sums.squares) / sums.count
    return {
        "mean": mean.tolist(),
        "std": np.sqrt(np.maximum(square - mean**2, 0)).tolist(),
        "rms": np.sqrt(square).tolist(),
        "min": list(sums.minimum),
        "max": list(sums.maximum),
    }


def statistics_by_side(sums: Mapping[str, ChannelSums]) -> dict[str, dict[str, list[float]]]:
    """Give the content of `stats.json` for sums by side."""
    return {side: statistics(own) for side, own in sums.items()}

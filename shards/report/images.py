"""Heatmaps of latents."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.page.images import picture, pool

RANGE_DB = 60.0
"""What a magnitude heatmap shows below its loudest value."""

RANGE_DEVIATIONS = 2.5
"""What a signed heatmap shows on either side of a channel's mean."""


def heatmap(latents: NDArray[Any], side: str, *, signed: bool) -> bytes:
    """Draw latents [D, T] as a PNG, channel 0 at the bottom, time to the right.

    `signed` shows each channel around its own mean, in its own standard deviations, so that channels that hardly
    change do not outshine those that do; without it the colours are the magnitude in dB. Values that are not finite
    are drawn as zeros.
    """
    values = np.nan_to_num(latents.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return picture(_deviations(pool(values)) if signed else _decibels(pool(np.abs(values))), side)


def _deviations(values: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = values - values.mean(axis=1, keepdims=True)
    scaled = centred / np.maximum(values.std(axis=1, keepdims=True), 1e-9)
    return np.asarray(np.clip(0.5 + scaled / (2 * RANGE_DEVIATIONS), 0, 1), np.float32)


def _decibels(values: NDArray[np.float32]) -> NDArray[np.float32]:
    level = 20 * np.log10(np.maximum(values, 1e-9) / max(float(values.max()), 1e-9))
    return np.asarray(np.clip(1 + level / RANGE_DB, 0, 1), np.float32)

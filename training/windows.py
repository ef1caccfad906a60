"""Windows of something long: where they lie, how they are cut, and how what is made of them is joined again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

OVERLAP = 0.25
"""Share of a window that it has in common with the next one, at least."""


@dataclass(frozen=True)
class Cut:
    """Where windows of `size` lie in something of `length`, along its last axis.

    Neighbours are cross-faded over `fade`, in the middle of what they share: beside the fade both windows are already
    there, so what is special about a window's first and last frames is never heard.
    """

    length: int
    size: int
    starts: tuple[int, ...]
    fade: int

    def times(self, factor: int) -> Cut:
        """Give the same cut of something that has `factor` places for each one: samples instead of frames."""
        starts = tuple(factor * start for start in self.starts)
        return Cut(factor * self.length, factor * self.size, starts, factor * self.fade)

    def gains(self, place: int) -> Tensor:
        """What window `place` counts at each of its places: [size]; those of all windows add up to 1 everywhere."""
        gains = torch.ones(self.size)
        # A raised cosine: equal gain, as neighbours are versions of one music, and exact where they are the same.
        rising = 0.5 - 0.5 * torch.cos(torch.pi * (torch.arange(self.fade) + 0.5) / max(self.fade, 1))
        if place > 0:
            border = self._border(place) - self.starts[place]
            gains[:border] = 0
            gains[border : border + self.fade] *= rising
        if place + 1 < len(self.starts):
            border = self._border(place + 1) - self.starts[place]
            gains[border : border + self.fade] *= 1 - rising
            gains[border + self.fade :] = 0
        return gains

    def _border(self, place: int) -> int:
        """Where the fade between window `place` and the one before it begins."""
        return (self.starts[place] + self.starts[place - 1] + self.size - self.fade) // 2


def plan_windows(length: int, size: int) -> Cut:
    """Lay windows of `size` over `length`, as few as can be, at even distances; the last one ends where all ends.

    What is shorter than a window gets one that is longer than it.
    """
    if length <= size:
        return Cut(length, size, (0,), 0)
    shared = min(math.ceil(OVERLAP * size), size - 1)
    count = math.ceil((length - shared) / (size - shared))
    starts = tuple(round(place * (length - size) / (count - 1)) for place in range(count))
    return Cut(length, size, starts, shared // 2)


def cut_windows(whole: Tensor, cut: Cut) -> Tensor:
    """Cut [..., n] into windows [W, ..., size]; where it ends early, zeros follow."""
    padded = F.pad(whole, (0, max(0, cut.starts[-1] + cut.size - whole.shape[-1])))
    return torch.stack([padded[..., start : start + cut.size] for start in cut.starts])


def join_windows(windows: Tensor, cut: Cut) -> Tensor:
    """Join windows [W, ..., size], cross-faded, to [..., length]. Windows of one thing give that thing again."""
    joined = windows.new_zeros((*windows.shape[1:-1], cut.length))
    for place, start in enumerate(cut.starts):
        stop = min(start + cut.size, cut.length)
        gains = cut.gains(place).to(windows)
        joined[..., start:stop] += (windows[place] * gains)[..., : stop - start]
    return joined

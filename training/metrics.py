"""Running means of metrics on the device: gathered at every step, read and reduced over the ranks now and then."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Metrics = dict[str, Tensor]
AllReduce = Callable[[Tensor], Tensor]
PEAK = "_max"
"""Ending of the names of metrics whose largest value counts; they must be equal on all ranks."""


class MetricMeans:
    """Weighted means of scalars, and peaks. `add` never waits for the device; `read` does, once."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}
        self._peaks: dict[str, Tensor] = {}

    def add(self, metrics: Metrics, weight: float | Tensor = 1.0) -> None:
        """Add scalars of one step, all on one device; at weight 0 they may be anything, numbers or not."""
        for name, value in metrics.items():
            value = value.detach().double()
            amount = torch.as_tensor(weight, dtype=torch.float64, device=value.device)
            if name.endswith(PEAK):
                peak = torch.where(amount > 0, value, -torch.inf)
                self._peaks[name] = torch.maximum(self._peaks.get(name, peak), peak)
                continue
            value = torch.where(amount > 0, value, 0.0)
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value * amount
            self._weights[name] = self._weights.get(name, torch.zeros_like(value)) + amount

    def read(self, all_reduce: AllReduce) -> dict[str, float]:
        """Reduce to means over all ranks with one collective, and start anew.

        Every rank must call it, with the same metrics. Those that nobody weighed are left out.
        """
        sums, weights = self._reduced(all_reduce)
        means = {name: sums[name] / weights[name] for name in sums if weights[name] > 0}
        means |= self._known_peaks()
        self._sums, self._weights, self._peaks = {}, {}, {}
        return means

    def state_dict(self, all_reduce: AllReduce) -> dict[str, Any]:
        """Describe what is gathered so far over all ranks, as plain data; every rank must call it."""
        sums, weights = self._reduced(all_reduce)
        known = {name: value for name, value in sums.items() if math.isfinite(value)}  # JSON has no other numbers
        return {"sums": known, "weights": {name: weights[name] for name in known}, "peaks": self._known_peaks()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device, *, leads: bool) -> None:
        """Go on from a state: one rank takes the sums over, the others its names, so that all have the same ones."""

        def tensors(values: dict[str, float], factor: float) -> dict[str, Tensor]:
            return {n: torch.tensor(x * factor, dtype=torch.float64, device=device) for n, x in values.items()}

        self._sums, self._weights = (tensors(state[part], float(leads)) for part in ("sums", "weights"))
        self._peaks = tensors(state["peaks"], 1.0)

    def _known_peaks(self) -> dict[str, float]:
        peaks = {name: float(value) for name, value in self._peaks.items()}
        return {name: peak for name, peak in peaks.items() if peak > -math.inf}

    def _reduced(self, all_reduce: AllReduce) -> tuple[dict[str, float], dict[str, float]]:
        names = sorted(self._sums)
        if not names:
            return {}, {}
        both = torch.stack([torch.stack([part[name] for name in names]) for part in (self._sums, self._weights)])
        sums, weights = all_reduce(both).tolist()
        return dict(zip(names, sums, strict=True)), dict(zip(names, weights, strict=True))

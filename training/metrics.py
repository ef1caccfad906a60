"""Running means of metrics on the device: gathered at every step, read and reduced over the ranks now and then."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Metrics = dict[str, Tensor]
AllReduce = Callable[[Tensor], Tensor]


class MetricMeans:
    """Weighted means of scalars. `add` never waits for the device; `read` does, once."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}

    def add(self, metrics: Metrics, weight: float = 1.0) -> None:
        """Add scalars of one step, all on one device."""
        for name, value in metrics.items():
            value = value.detach().double() * weight
            amount = torch.full_like(value, weight)
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._weights[name] = self._weights[name] + amount if name in self._weights else amount

    def read(self, all_reduce: AllReduce, names: tuple[str, ...] | None = None) -> dict[str, float]:
        """Reduce to means over all ranks with one collective, and start anew.

        Every rank must call it, with the same metrics; a rank that may have seen no step gives `names`.
        """
        keys = tuple(sorted(self._sums)) if names is None else names
        if not keys:
            return {}
        zero = torch.zeros(
            (), dtype=torch.float64, device=next(iter(self._sums.values())).device if self._sums else None
        )
        sums = [self._sums.get(key, zero) for key in keys]
        weights = [self._weights.get(key, zero) for key in keys]
        both = all_reduce(torch.stack([torch.stack(sums), torch.stack(weights)]))
        self._sums, self._weights = {}, {}
        means = (both[0] / both[1]).tolist()
        return dict(zip(keys, means, strict=True))

"""Batches on their way to the device: copied while the step before them is computed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch.profiler import record_function

from shards.reader import Batch


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Give batches whose latents lie on the device; on a GPU each is copied one ahead, from pinned memory."""
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: Batch | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            copied = _copy(batch, device)
        if ahead is not None:
            yield ahead
        torch.cuda.current_stream(device).wait_stream(stream)
        for tensor in (copied.input, copied.target):
            tensor.record_stream(torch.cuda.current_stream(device))
        ahead = copied
    if ahead is not None:
        yield ahead


def _copy(batch: Batch, device: torch.device) -> Batch:
    return replace(
        batch,
        input=batch.input.to(device, non_blocking=True),
        target=batch.target.to(device, non_blocking=True),
    )


class Waiting:
    """Iterates over batches and measures how long that made the trainer wait, in seconds."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches."""
        while True:
            began = time.perf_counter()
            with record_function("step/wait for data"):
                batch = next(self._batches, None)
            self.seconds += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def take_seconds(self) -> float:
        """Give the waiting since the last call."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds

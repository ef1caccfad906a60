"""The loader: one epoch of a split as batches of tensors, in the canonical order, from memory-mapped shards."""

from __future__ import annotations

import mmap
import queue
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from shards.dataset import damaged
from shards.errors import DatasetError, MisuseError
from shards.order import Indices, epoch_order, evaluation_steps, rank_slice, train_steps
from shards.schema import SIDES, ArrayField
from shards.wire import array_header, map_shard

if TYPE_CHECKING:
    from shards.dataset import Dataset

PREFETCHED_BATCHES = 3


@dataclass(frozen=True)
class Batch:
    """One rank's share of a global batch.

    `input` and `target` are [B, D, T] in the stored type. `weight` [B], float32, is 0 for the padding of the last
    batch of an evaluation and 1 elsewhere; `keys` names every row, the padding too.
    """

    input: Tensor
    target: Tensor
    keys: list[str]
    weight: Tensor


class Loader:
    """Iterates over what is left of one epoch of a split, for one rank.

    In mode `train` there are `n // G` equal steps of global batches of G = batch_size * world_size, in an order of
    (seed, epoch); rank r takes slice r of each. In mode `evaluate` the order is that of the shards, every sample is
    given once over all ranks, and the last batch is padded, so that all ranks take equally many steps.

    The state counts samples, so that an epoch can go on with another batch size or world size. It counts what the
    caller received, not what was prefetched.

    Raises `MisuseError` for a rank or batch size that makes no sense, and `DatasetError`, with shard, key and byte
    offset, for a damaged sample.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        rank: int,
        world_size: int,
        mode: Literal["train", "evaluate"],
        window: int | None = None,
        check_crc: bool = True,
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world_size:
            raise MisuseError(
                f"loader: batch_size {batch_size}, rank {rank}, world_size {world_size}: "
                "the batch needs at least one sample and the rank must lie in [0, world_size)"
            )
        if window is not None and window < 1:
            raise MisuseError(f"loader: a window of {window} shards makes no order; give at least 1, or None for all")
        self._entry = dataset.split(split)
        self._fingerprint = dataset.manifest.fingerprint
        self._shards = _Shards(dataset, split, check_crc)
        self._split, self._mode = split, mode
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._seed, self._epoch, self._window = seed, epoch, window
        self._samples_done = 0

    @property
    def global_batch(self) -> int:
        """Samples a step, over all ranks."""
        return self._batch_size * self._world_size

    def __len__(self) -> int:
        """Count the steps that are left in the epoch; equal on every rank."""
        steps = train_steps if self._mode == "train" else evaluation_steps
        return steps(self._entry.samples, self._samples_done, self.global_batch)

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches that are left in the epoch."""
        # All that the thread needs is fixed here: the position moves on while it reads ahead.
        steps, first = len(self), self._samples_done
        for batch in _prefetched(lambda: self._batches(first, steps), PREFETCHED_BATCHES):
            self._samples_done = min(self._samples_done + self.global_batch, self._entry.samples)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Describe the position in the canonical order; JSON, a few numbers whatever the dataset's size."""
        return {
            "fingerprint": self._fingerprint,
            "split": self._split,
            "mode": self._mode,
            "seed": self._seed,
            "epoch": self._epoch,
            "window": self._window,
            "samples_done": self._samples_done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a position, in O(1).

        Raises `MisuseError` where the state belongs to another dataset, split, mode, seed or window (the order would
        be another one), or is no state of a loader.
        """
        own = self.state_dict()
        if lacking := sorted(own.keys() - state.keys()):
            raise MisuseError(f"loader: the state lacks {', '.join(lacking)}; it was not saved by a loader")
        for name in ("fingerprint", "split", "mode", "seed", "window"):
            if state[name] != own[name]:
                raise MisuseError(
                    f"loader: the state was saved with {name} {state[name]!r}, this loader has {own[name]!r}; "
                    "resume with the same data and settings, or start anew"
                )
        self._epoch, self._samples_done = int(state["epoch"]), int(state["samples_done"])

    def _batches(self, first: int, steps: int) -> Iterator[Batch]:
        order = self._order()
        for step in range(steps):
            start = first + step * self.global_batch
            yield self._shards.read(rank_slice(order, start, self._batch_size, self._rank), self._batch_size)

    def _order(self) -> Indices:
        if self._mode == "evaluate":
            return np.arange(self._entry.samples, dtype=np.int64)
        sizes = [shard.samples for shard in self._entry.shards]
        return epoch_order(sizes, self._seed, self._epoch, self._window)


class _Shards:
    """A split's shards, mapped when first read, and batches cut out of them."""

    def __init__(self, dataset: Dataset, split: str, check_crc: bool) -> None:
        self._dataset, self._split, self._check_crc = dataset, split, check_crc
        self._index = dataset.index(split)
        self._maps: dict[int, mmap.mmap] = {}

    def read(self, rows: Indices, batch_size: int) -> Batch:
        """Read samples [<= batch_size]; missing rows are filled with the split's first sample at weight 0."""
        padded = np.concatenate([rows, np.zeros(batch_size - len(rows), np.int64)])
        entries = self._index[padded]
        arrays = {field.name: self._read_side(entries, field) for field in self._dataset.manifest.fields}
        weight = torch.zeros(batch_size)
        weight[: len(rows)] = 1
        keys = [key.decode() for key in entries["key"]]
        return Batch(arrays[SIDES[0]], arrays[SIDES[1]], keys, weight)

    def _read_side(self, entries: np.ndarray[Any, Any], field: ArrayField) -> Tensor:
        header = array_header(np.dtype(field.dtype), field.shape)
        batch = torch.empty((len(entries), *field.shape), dtype=getattr(torch, field.dtype))
        rows = batch.numpy()
        for row, entry in zip(rows, entries, strict=True):
            offset, size = int(entry[f"{field.name}_offset"]), int(entry[f"{field.name}_bytes"])
            with (
                memoryview(self._map(int(entry["shard"]))) as shard,
                shard[offset : offset + size] as payload,
            ):
                if self._check_crc and zlib.crc32(payload) != entry[f"{field.name}_crc32"]:
                    raise self._damaged(entry, field.name, offset, "its crc32 is not the index's")
                if size != len(header) + row.nbytes or len(payload) != size or payload[: len(header)] != header:
                    raise self._damaged(entry, field.name, offset, f"it is no {field.dtype} {list(field.shape)}")
                row[...] = np.frombuffer(payload, field.dtype, offset=len(header)).reshape(field.shape)
        return batch

    def _map(self, number: int) -> mmap.mmap:
        if number not in self._maps:
            path = self._dataset.path / self._dataset.split(self._split).shards[number].file
            self._maps[number] = map_shard(path)
        return self._maps[number]

    def _damaged(self, entry: Any, side: str, offset: int, what: str) -> DatasetError:
        shard = self._dataset.split(self._split).shards[int(entry["shard"])].file
        return damaged(self._dataset.path / shard, entry["key"].decode(), side, offset, what)


def _prefetched(batches: Callable[[], Iterator[Batch]], depth: int) -> Iterator[Batch]:
    """Run an iterator in one thread, `depth` items ahead.

    One thread and not worker processes: the reading is a copy from the page cache, which releases the interpreter,
    and handing a batch to another process would copy it once more.
    """
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Batch | BaseException | None) -> bool:
        while not stopped.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            for batch in batches():
                if not put(batch):
                    return
            put(None)
        except BaseException as error:  # handed to the consumer, who raises it
            put(error)

    thread = threading.Thread(target=work, name="shards-prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()

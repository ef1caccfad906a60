"""The loader: one epoch of a split as batches of tensors, in the canonical order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards.backend import Backend, BackendName, BadPayload, Place, make_backend
from shards.checksum import crc32
from shards.errors import DatasetError, MisuseError
from shards.order import EpochOrder, Indices, OrderPlan, evaluation_steps, rank_positions, train_steps
from shards.prefetch import prefetched
from shards.schema import SIDES, ArrayField
from shards.wire import array_header

if TYPE_CHECKING:
    from shards.dataset import Dataset

PREFETCHED_BATCHES = 3
STEPS_AHEAD = 16
"""So far ahead the back end hears which shards it will need."""
Mode = Literal["train", "evaluate"]


@dataclass(frozen=True)
class Batch:
    """One rank's share of a global batch.

    `input` and `target` are [B, D, T] in the stored type. `weight` [B], float32, is 0 for the padding of the last
    batch of an evaluation and for masked samples, and 1 elsewhere. `keys` names the sample of every row's input, the
    padding too; `target_keys` that of its target, another one where the loader re-pairs.
    """

    input: Tensor
    target: Tensor
    keys: list[str]
    target_keys: list[str]
    weight: Tensor

    def head(self, rows: int) -> Batch:
        """Keep the first `rows` rows."""
        return Batch(
            self.input[:rows], self.target[:rows], self.keys[:rows], self.target_keys[:rows], self.weight[:rows]
        )


@dataclass(frozen=True)
class LoaderOptions:
    """How a loader reads; see `Dataset.loader`."""

    mode: Mode
    window: int | None = None
    partitions: int = 1
    re_pair: bool = False
    backend: BackendName = "direct"
    check_crc: bool = True
    on_bad: Literal["raise", "mask"] = "raise"
    max_bad: int = 16
    pin_memory: bool = False


class Loader:
    """Iterates over what is left of one epoch of a split, for one rank.

    In mode `train` there are `n // G` equal steps of global batches of G = batch_size * world_size, in an order of
    (seed, epoch); rank r takes slice r of each. In mode `evaluate` the order is that of the shards, every sample is
    given once over all ranks, and the last batch is padded, so that all ranks take equally many steps.

    The state counts samples, so that an epoch can go on with another batch size or world size. It counts what the
    caller received, not what was prefetched.

    Raises `MisuseError` for a rank, batch size or plan that makes no sense, and `DatasetError`, with shard, key and
    byte offset, for a damaged sample; with `on_bad="mask"` such a sample gets weight 0 and lands in `bad`, up to
    `max_bad` of them.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        batch_size: int,
        seed: int,
        epoch: int,
        rank: int,
        world_size: int,
        options: LoaderOptions,
    ) -> None:
        _check(batch_size, rank, world_size, options, len(dataset.split(split).shards))
        self.bad: list[str] = []
        self._dataset, self._entry, self._options = dataset, dataset.split(split), options
        self._split, self._seed, self._epoch = split, seed, epoch
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._samples_done = 0

    @property
    def global_batch(self) -> int:
        """Samples a step, over all ranks."""
        return self._batch_size * self._world_size

    def __len__(self) -> int:
        """Count the steps that are left in the epoch; equal on every rank."""
        if self._options.mode == "evaluate":
            return evaluation_steps(self._entry.samples, self._samples_done, self.global_batch)
        samples = self._plan.samples(self._seed, self._epoch)
        return train_steps(samples, self._samples_done, self.global_batch)

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches that are left in the epoch."""
        # All that the thread needs is fixed here: the position moves on while it reads ahead.
        steps, first = len(self), self._samples_done
        for batch in prefetched(lambda: self._batches(first, steps), PREFETCHED_BATCHES):
            self._samples_done = min(self._samples_done + self.global_batch, self._entry.samples)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Describe the position in the canonical order; JSON, a few numbers whatever the dataset's size."""
        return {
            "fingerprint": self._dataset.manifest.fingerprint,
            "split": self._split,
            "mode": self._options.mode,
            "seed": self._seed,
            "window": self._options.window,
            "partitions": self._options.partitions,
            "re_pair": self._options.re_pair,
            "epoch": self._epoch,
            "samples_done": self._samples_done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a position, in O(1).

        Raises `MisuseError` where the state belongs to another dataset, split, mode, seed or plan (the order would be
        another one), or is no state of a loader.
        """
        own = self.state_dict()
        if lacking := sorted(own.keys() - state.keys()):
            raise MisuseError(f"loader: the state lacks {', '.join(lacking)}; it was not saved by a loader")
        for name in own.keys() - {"epoch", "samples_done"}:
            if state[name] != own[name]:
                raise MisuseError(
                    f"loader: the state was saved with {name} {state[name]!r}, this loader has {own[name]!r}; "
                    "resume with the same data and settings, or start anew"
                )
        self._epoch, self._samples_done = int(state["epoch"]), int(state["samples_done"])

    @cached_property
    def _plan(self) -> OrderPlan:
        sizes = tuple(shard.samples for shard in self._entry.shards)
        return OrderPlan(sizes, self._options.window, self._options.partitions, self._options.re_pair)

    def _order(self) -> EpochOrder:
        if self._options.mode == "evaluate":
            in_turn = np.arange(self._entry.samples, dtype=np.int64)
            return EpochOrder(in_turn, in_turn)
        return self._plan.epoch(self._seed, self._epoch)

    def _batches(self, first: int, steps: int) -> Iterator[Batch]:
        order, index = self._order(), self._dataset.index(self._split)
        backend = make_backend(self._options.backend, self._dataset.store, self._entry.shards, self._options.window)
        reader = _ArrayReader(self._dataset, self._split, backend, self._options)
        try:
            for step in range(steps):
                if self._dataset.store.remote and step % STEPS_AHEAD == 0:
                    coming = range(step, min(step + 2 * STEPS_AHEAD, steps))
                    rows = np.concatenate([side for later in coming for side in self._rows(first, later, order)])
                    backend.ahead(dict.fromkeys(index["shard"][rows].tolist()))  # in the order of their first use
                inputs, targets = self._rows(first, step, order)
                yield reader.read(inputs, targets, self._batch_size, self.bad)
        finally:
            backend.close()

    def _rows(self, first: int, step: int, order: EpochOrder) -> tuple[Indices, Indices]:
        start = first + step * self.global_batch
        partitions = self._options.partitions if self._options.mode == "train" else 1
        positions = rank_positions(start, self._batch_size, self._rank, self._world_size, partitions)
        positions = positions[positions < len(order.inputs)]
        return order.inputs[positions], order.targets[positions]


class _ArrayReader:
    """Batches out of a split's payloads, each checked as it is copied."""

    def __init__(self, dataset: Dataset, split: str, backend: Backend, options: LoaderOptions) -> None:
        self._dataset, self._backend, self._options = dataset, backend, options
        self._index = dataset.index(split)
        self._shards = dataset.split(split).shards
        self._fields: dict[str, ArrayField] = {field.name: field for field in dataset.manifest.fields}

    def read(self, inputs: Indices, targets: Indices, batch_size: int, bad: list[str]) -> Batch:
        """Read samples [<= batch_size]; missing rows are filled with the split's first sample at weight 0."""
        weight = torch.zeros(batch_size)
        weight[: len(inputs)] = 1
        padding = np.zeros(batch_size - len(inputs), np.int64)
        sides, keys = [], []
        for side, rows in zip(SIDES, (inputs, targets), strict=True):
            entries = self._index[np.concatenate([rows, padding])]
            keys.append([key.decode() for key in entries["key"].tolist()])
            sides.append(self._read_side(entries, keys[-1], self._fields[side], weight, bad))
        return Batch(sides[0], sides[1], keys[0], keys[1], weight)

    def _read_side(
        self, entries: NDArray[Any], keys: list[str], field: ArrayField, weight: Tensor, bad: list[str]
    ) -> Tensor:
        batch = self._empty((len(entries), *field.shape), field.dtype)
        values = memoryview(batch.numpy().reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        length = len(values) // len(entries)
        # Columns as lists: a field of a structured row costs a microsecond each time it is asked for.
        columns = (entries["shard"], *(entries[f"{field.name}_{what}"] for what in ("offset", "bytes", "crc32")))
        for row, (key, shard, offset, size, expected) in enumerate(
            zip(keys, *(c.tolist() for c in columns), strict=True)
        ):
            place = Place(shard, key, field.name, offset, size)
            try:
                self._read_row(place, expected, field, values[row * length : (row + 1) * length])
            except BadPayload as error:
                problem = self._dataset.damage(self._shards[shard], key, field.name, offset, str(error))
                if self._options.on_bad == "raise":
                    raise problem from None
                if weight[row]:  # else it is padding, or its other side was bad already
                    self._count(problem, bad)
                batch[row], weight[row] = 0, 0
        return batch

    def _empty(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        if self._options.pin_memory:  # torch keeps a pool of pinned memory itself
            return torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=True)
        return torch.from_numpy(self._dataset.buffers.take(shape, dtype))

    def _read_row(self, place: Place, expected: int, field: ArrayField, values: memoryview) -> None:
        plain = array_header(np.dtype(field.dtype), field.shape)
        header = memoryview(bytearray(len(plain)))
        self._backend.read(place, header, values)
        if self._options.check_crc and crc32(values, crc32(header)) != expected:
            raise BadPayload("its crc32 is not the index's")
        if header != plain:
            raise BadPayload(f"it is no {field.dtype} {list(field.shape)}")

    def _count(self, problem: DatasetError, bad: list[str]) -> None:
        bad.append(str(problem))
        if len(bad) > self._options.max_bad:
            raise DatasetError(
                f"{len(bad)} damaged samples are more than max_bad={self._options.max_bad} allows; first: {bad[0]}"
            )


def _check(batch_size: int, rank: int, world_size: int, options: LoaderOptions, shards: int) -> None:
    if batch_size < 1 or not 0 <= rank < world_size:
        raise MisuseError(
            f"loader: batch_size {batch_size}, rank {rank}, world_size {world_size}: "
            "the batch needs at least one sample and the rank must lie in [0, world_size)"
        )
    if options.window is not None and options.window < 1:
        raise MisuseError(
            f"loader: a window of {options.window} shards makes no order; give at least 1, or None for all"
        )
    if not 1 <= options.partitions <= max(shards, 1):
        raise MisuseError(f"loader: {options.partitions} partitions of {shards} shards; each needs a shard")
    if options.partitions > 1 and batch_size * world_size % options.partitions:
        raise MisuseError(
            f"loader: a global batch of {batch_size * world_size} can't be shared by {options.partitions} partitions; "
            "make it a multiple"
        )

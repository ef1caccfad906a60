"""The one canonical order of samples, and each rank's share of it. Pure; every rank can compute all of it.

The order depends on the seed, the epoch, the shards' sizes and the plan alone: never on rank, world size, workers, time
or the version of a random number library. Permutations sort 64-bit hashes (SplitMix64, Steele, Lea & Flood 2014), so
that a reader in any language can reproduce them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_CHUNK = 1 << 15  # hashed at once: small enough to stay in a core's cache
_SHARDS, _SAMPLES, _TARGETS = 0, 1, 2  # what a seed is derived for


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash unsigned 64-bit integers, element by element (arithmetic modulo 2**64)."""
    mixed = values + _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def derive(*numbers: int) -> int:
    """Derive one 64-bit seed from a path of numbers, such as (seed, epoch, purpose)."""
    state = np.zeros(1, np.uint64)
    for number in numbers:
        state = splitmix64(state ^ np.array([number % 2**64], np.uint64))
    return int(state[0])


def permutation(size: int, seed: int) -> Indices:
    """Permute 0..size-1: sorted by the hash of i XOR seed, whose low bits are replaced by i itself.

    As many bits as `size - 1` has are replaced, so that the sorted numbers hold the permutation and ties can't be.
    """
    low = np.uint64((1 << max(size - 1, 0).bit_length()) - 1)
    keys = np.arange(size, dtype=np.uint64)
    for first in range(0, size, _CHUNK):
        chunk = keys[first : first + _CHUNK]
        chunk[...] = (splitmix64(chunk ^ np.uint64(seed)) & ~low) | chunk
    keys.sort()
    keys &= low
    return keys.view(np.int64)


@dataclass(frozen=True)
class EpochOrder:
    """The order of an epoch: `inputs` [n] are global sample numbers, and `targets` [n] those that they go with."""

    inputs: Indices
    targets: Indices


@dataclass(frozen=True)
class OrderPlan:
    """How an epoch is ordered.

    The shards are permuted and dealt to `partitions` equal shares; inside each share, samples are permuted within
    windows of `window` consecutive shards (None: all of the share). Every step takes equally many samples from each
    partition, so a node that holds some partitions reads only their shards, and the global batches stay the same for
    every number of nodes that divides the partitions. With `re_pair` each input gets the target of another sample of
    its window: along one random cycle, so that none keeps its own.
    """

    shard_sizes: tuple[int, ...]
    window: int | None = None
    partitions: int = 1
    re_pair: bool = False

    def epoch(self, seed: int, epoch: int) -> EpochOrder:
        """Order one epoch. Partitions of unequal size are cut to the smallest; another seed drops others."""
        shares = [self._partition(share, seed, epoch) for share in self.deal(seed, epoch)]
        if self.partitions == 1:
            return EpochOrder(*shares[0])
        length = min(len(inputs) for inputs, _ in shares)
        sides = (np.stack([share[side][:length] for share in shares], axis=1).reshape(-1) for side in (0, 1))
        return EpochOrder(*sides)

    def samples(self, seed: int, epoch: int) -> int:
        """Count the samples of one epoch's order, without making it."""
        if self.partitions == 1:
            return sum(self.shard_sizes)
        shares = self.deal(seed, epoch)
        return self.partitions * min(sum(self.shard_sizes[int(shard)] for shard in share) for share in shares)

    def deal(self, seed: int, epoch: int) -> list[Indices]:
        """Deal the permuted shards to the partitions, each to the one that has the fewest samples so far."""
        shards = permutation(len(self.shard_sizes), derive(seed, epoch, _SHARDS))
        if self.partitions == 1:
            return [shards]
        shares: list[list[int]] = [[] for _ in range(self.partitions)]
        filled = [0] * self.partitions
        for shard in shards.tolist():
            least = filled.index(min(filled))
            shares[least].append(shard)
            filled[least] += self.shard_sizes[shard]
        return [np.array(share, np.int64) for share in shares]

    def _partition(self, shards: Indices, seed: int, epoch: int) -> tuple[Indices, Indices]:
        sizes = np.array(self.shard_sizes, np.int64)
        if self.window is None and self.partitions == 1:
            inputs = permutation(int(sizes.sum()), derive(seed, epoch, _SAMPLES))
            return inputs, self._targets(inputs, derive(seed, epoch, _TARGETS))
        starts = np.cumsum(sizes) - sizes
        step = self.window or max(len(shards), 1)
        windows = [
            np.concatenate([np.arange(starts[s], starts[s] + sizes[s]) for s in shards[first : first + step]])
            for first in range(0, len(shards), step)
        ]
        own = int(shards[0]) if len(shards) and self.partitions > 1 else 0  # tells the partitions' seeds apart
        return self._windows(windows, (seed, epoch), own)

    def _windows(self, windows: Sequence[Indices], place: tuple[int, int], own: int) -> tuple[Indices, Indices]:
        inputs, targets = [], []
        for number, window in enumerate(windows):
            inputs.append(window[permutation(len(window), derive(*place, _SAMPLES, own, number))])
            targets.append(self._targets(inputs[-1], derive(*place, _TARGETS, own, number)))
        empty = np.zeros(0, np.int64)
        return np.concatenate([empty, *inputs]), np.concatenate([empty, *targets])

    def _targets(self, inputs: Indices, seed: int) -> Indices:
        if not self.re_pair:
            return inputs
        cycle = permutation(len(inputs), seed)
        targets = np.empty_like(inputs)
        targets[cycle] = inputs[np.roll(cycle, -1)]
        return targets


def train_steps(samples: int, samples_done: int, global_batch: int) -> int:
    """Whole global batches left in an epoch; the rest is dropped, a different rest each epoch."""
    return max(samples - samples_done, 0) // global_batch


def evaluation_steps(samples: int, samples_done: int, global_batch: int) -> int:
    """Global batches left until every sample was seen; the last one is padded."""
    return -(-max(samples - samples_done, 0) // global_batch)


def rank_positions(first: int, batch_size: int, rank: int, world_size: int, partitions: int = 1) -> Indices:
    """Positions in the order of rank `rank`'s samples [B] in the global batch that starts at position `first`.

    The global batch is laid out partition by partition and then cut into equal slices, so that a rank reads as few
    partitions as possible. The caller drops positions past the end of the order.
    """
    in_order = np.arange(batch_size * world_size, dtype=np.int64).reshape(-1, partitions)
    by_partition = in_order.T.reshape(-1)
    return first + by_partition[rank * batch_size : (rank + 1) * batch_size]


def re_paired_targets(shard_samples: tuple[int, ...], seed: int) -> Indices:
    """Whose target each sample of a split gets in the first epoch of re-paired training: [n], by number."""
    order = OrderPlan(shard_samples, re_pair=True).epoch(seed, 0)
    targets = np.empty(len(order.inputs), np.int64)
    targets[order.inputs] = order.targets
    return targets

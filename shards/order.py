"""The one canonical order of samples, and each rank's share of it. Pure; every rank can compute all of it.

The order depends on the seed, the epoch and the shards' sizes alone: never on rank, world size, workers, time or
the version of a random number library. Permutations sort 64-bit hashes (SplitMix64, Steele, Lea & Flood 2014), so
that a reader in any language can reproduce them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


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
    """Permute 0..size-1: the ranks of the hashes of (seed, i), ties in order of i."""
    hashes = splitmix64(np.arange(size, dtype=np.uint64) ^ np.uint64(seed))
    return np.argsort(hashes, kind="stable")


def epoch_order(shard_sizes: Sequence[int], seed: int, epoch: int, window: int | None = None) -> Indices:
    """Order all samples of a split for one epoch, as global sample numbers [n].

    The shards are permuted, then the samples inside windows of `window` consecutive shards; None takes all shards
    as one window, a full shuffle.
    """
    starts = np.concatenate([[0], np.cumsum(shard_sizes)])[:-1].astype(np.int64)
    if window is None:
        return permutation(int(sum(shard_sizes)), derive(seed, epoch, 1))
    shards = permutation(len(shard_sizes), derive(seed, epoch, 0))
    parts: list[Indices] = []
    for number, first in enumerate(range(0, len(shards), window)):
        samples = np.concatenate(
            [np.arange(starts[s], starts[s] + shard_sizes[s]) for s in shards[first : first + window]]
        )
        parts.append(samples[permutation(len(samples), derive(seed, epoch, 1, number))])
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def train_steps(samples: int, samples_done: int, global_batch: int) -> int:
    """Whole global batches left in an epoch; the rest is dropped, a different rest each epoch."""
    return max(samples - samples_done, 0) // global_batch


def evaluation_steps(samples: int, samples_done: int, global_batch: int) -> int:
    """Global batches left until every sample was seen; the last one is padded."""
    return -(-max(samples - samples_done, 0) // global_batch)


def rank_slice(order: Indices, first: int, batch_size: int, rank: int) -> Indices:
    """Rank `rank`'s samples [<= batch_size] of the global batch that starts at position `first` of the order.

    Shorter, or empty, only past the end of the order.
    """
    start = first + rank * batch_size
    return order[start : start + batch_size]

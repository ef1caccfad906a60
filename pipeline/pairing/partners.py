"""Who goes with whom in mode `cross`: pure, over names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.pairing.records import Choose
from pipeline.pairing.splits import shuffled
from shards.files import canonical_json, sha256_bytes

TEMPO_STEP = np.log2(1.005)
"""Tempos that lie within half a percent of each other count as equally near: an estimate is no better than that."""


def choose_partners(
    choose: Choose,
    inputs: Sequence[str],
    targets: Sequence[str],
    count: int,
    seed: int,
    tempos: Mapping[str, float | None],
) -> dict[str, list[str]]:
    """Give every input `count` different targets, or all there are but itself, where they are fewer.

    `seeded` uses each target equally often before any is used again. `tempo` takes the nearest tempos, where
    doubling and halving are no distance; equally near ones are drawn. `random` draws for each input alone.
    """
    if choose == "seeded":
        return _in_turn(shuffled(inputs, seed), shuffled(targets, seed), count)
    ordered = sorted(targets)
    octaves = np.array([_octave(tempos.get(name)) for name in ordered])
    partners = {}
    for name in sorted(inputs):
        order = _generator(seed, name).permutation(len(ordered))
        if choose == "tempo":
            steps = _distance(octaves, _octave(tempos.get(name))) // TEMPO_STEP
            order = order[np.argsort(steps[order], kind="stable")]
        # One more than asked for: the input itself may be among them.
        partners[name] = [ordered[place] for place in order[: count + 1] if ordered[place] != name][:count]
    return partners


def _in_turn(inputs: Sequence[str], targets: Sequence[str], count: int) -> dict[str, list[str]]:
    """Give each input, in order, those targets that were used least, and among those the first in order.

    Of targets used equally often, those that are inputs still to come are given first: afterwards they are partners
    that one input fewer may have.
    """
    size = len(targets)
    place = {name: number for number, name in enumerate(targets)}
    to_come = set(inputs)
    # What comes first, in one number: how often it was used, whether it is no input to come, its place.
    key = np.array([place[name] + size * (name not in to_come) for name in targets], dtype=np.int64)
    partners: dict[str, list[str]] = {}
    for name in inputs:
        own = place.get(name)
        nearest = min(count + 1, size)
        least = np.argpartition(key, nearest - 1)[:nearest]
        chosen = [number for number in least[np.argsort(key[least])] if number != own][:count]
        key[chosen] += 2 * size
        if own is not None:
            key[own] += size
        partners[name] = [targets[number] for number in chosen]
    return partners


def _octave(tempo: float | None) -> float:
    return float(np.log2(tempo)) if tempo else np.nan


def _distance(octaves: NDArray[np.float64], octave: float) -> NDArray[np.float64]:
    """Octaves between tempos, 0 to 0.5; a tempo that is not known is farther away than any other."""
    apart = np.abs(octaves - octave) % 1
    shorter: NDArray[np.float64] = np.nan_to_num(np.minimum(apart, 1 - apart), nan=1.0)
    return shorter


def _generator(seed: int, name: str) -> np.random.Generator:
    """Draw for one input: what is drawn for others does not matter."""
    return np.random.default_rng(int(sha256_bytes(canonical_json([seed, name]))[:16], 16))

"""The plan: which pairs make which shard. Pure; decided before anything is encoded.

Because every shard's content is fixed here, it comes out byte for byte the same with any number of workers and after
any history of crashes, and a finished shard can be told from an unfinished one by its receipt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path

from pipeline.audio import ScreeningConfig
from pipeline.pairing import Cut, Pair, Pairs
from pipeline.pairing.pairs_file import pairs_digest
from shards.files import canonical_json, sha256_bytes
from shards.latents import Representation
from shards.manifest import codec_fingerprint, receipt_file
from shards.receipt import shard_file
from shards.schema import CodecSpec, SideName


@dataclass(frozen=True)
class ShardSettings:
    """What the bytes of a shard depend on beside its pairs; `loudness` in LUFS, None where it is left as it is."""

    root: str
    window_samples: int
    codec: CodecSpec
    latents: Representation
    audio: tuple[SideName, ...]
    screening: ScreeningConfig
    loudness: float | None
    pairing: str
    pairing_seed: int

    @property
    def codec_fingerprint(self) -> str:
        """Name of the codec and its weights."""
        return codec_fingerprint(self.codec)


@dataclass(frozen=True)
class ShardPlan:
    """One shard to make: its file, relative to the dataset, its split, its pairs in order, and its sources' hashes.

    `expected_sha256` is what the file must come out as, where a published dataset says so.
    """

    file: str
    split: str
    pairs: tuple[Pair, ...]
    sources: Mapping[str, str]
    settings: ShardSettings
    expected_sha256: str | None = None

    @property
    def receipt(self) -> str:
        """File of the receipt, relative to the dataset."""
        return receipt_file(self.file)

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that the shard's bytes depend on; the folder that the sources lie in is not part of it."""
        settings = self.settings
        content = [
            self.file,
            self.split,
            pairs_digest(self.pairs),
            self.sources,
            settings.window_samples,
            settings.codec.model_dump(),
            settings.latents,
            settings.audio,
            settings.screening.model_dump(),
            settings.loudness,
            settings.pairing,
            settings.pairing_seed,
        ]
        return sha256_bytes(canonical_json(content))

    @cached_property
    def windows(self) -> dict[str, dict[Cut, set[SideName]]]:
        """Every window that is needed, once, by source file, with the sides that it stands on.

        A window may stand in several pairs, as it does where each window is paired with the one after it.
        """
        found: dict[str, dict[Cut, set[SideName]]] = {}
        for pair in self.pairs:
            for side, cut in pair.sides:
                found.setdefault(cut.path, {}).setdefault(cut, set()).add(side)
        return found

    def source(self, path: str) -> Path:
        """Where a source file lies."""
        return Path(self.settings.root, path)


def plan_shards(pairs: Pairs, settings: ShardSettings, name: str, samples_per_shard: int) -> tuple[ShardPlan, ...]:
    """Cut the pairs of each split, in sorted order, into shards of `samples_per_shard`.

    Windows of one track stay together, so that a track is decoded once; the loader shuffles.
    """
    by_split: dict[str, list[Pair]] = {}
    for pair in pairs.pairs:
        by_split.setdefault(pair.split, []).append(pair)
    plans: list[ShardPlan] = []
    hashes = pairs.sources
    for split, own in sorted(by_split.items()):
        own.sort(key=attrgetter("input", "target"))
        for number, first in enumerate(range(0, len(own), samples_per_shard)):
            chosen = tuple(own[first : first + samples_per_shard])
            paths = {pair.input.path for pair in chosen} | {pair.target.path for pair in chosen}
            sources = {path: hashes[path] for path in sorted(paths) if path in hashes}
            plans.append(ShardPlan(shard_file(name, split, number), split, chosen, sources, settings))
    return tuple(plans)


def plan_sha256(plans: Sequence[ShardPlan]) -> str:
    """Hash of a whole plan."""
    return sha256_bytes(canonical_json([plan.sha256 for plan in plans]))

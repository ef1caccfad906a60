"""The plan: which pairs make which shard. Pure; decided before anything is encoded.

Because every shard's content is fixed here, it comes out byte for byte the same with any number of workers and after
any history of crashes, and a finished shard can be told from an unfinished one by its receipt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.audio import ScreeningConfig
from pipeline.pairing import Pair, Pairs
from shards.files import canonical_json, sha256_bytes
from shards.latents import Representation
from shards.manifest import codec_fingerprint, receipt_file
from shards.receipt import shard_file
from shards.schema import CodecSpec, SideName


@dataclass(frozen=True)
class ShardSettings:
    """What the bytes of a shard depend on beside its pairs."""

    root: str
    window_samples: int
    codec: CodecSpec
    latents: Representation
    audio: tuple[SideName, ...]
    screening: ScreeningConfig
    pairing: str
    pairing_seed: int

    @property
    def codec_fingerprint(self) -> str:
        """Name of the codec and its weights."""
        return codec_fingerprint(self.codec)


@dataclass(frozen=True)
class ShardPlan:
    """One shard to make: its file, relative to the dataset, its split and its pairs in order."""

    file: str
    split: str
    pairs: tuple[Pair, ...]
    settings: ShardSettings

    @property
    def receipt(self) -> str:
        """File of the receipt, relative to the dataset."""
        return receipt_file(self.file)

    @property
    def sha256(self) -> str:
        """Hash of everything that the shard's bytes depend on; the folder that the sources lie in is not part of it."""
        settings = self.settings
        content = [
            self.file,
            self.split,
            [pair.model_dump() for pair in self.pairs],
            settings.window_samples,
            settings.codec.model_dump(),
            settings.latents,
            settings.audio,
            settings.screening.model_dump(),
            settings.pairing,
            settings.pairing_seed,
        ]
        return sha256_bytes(canonical_json(content))


def plan_shards(pairs: Pairs, settings: ShardSettings, name: str, samples_per_shard: int) -> tuple[ShardPlan, ...]:
    """Cut the pairs of each split, in sorted order, into shards of `samples_per_shard`.

    Windows of one track stay together, so that a track is decoded once; the loader shuffles.
    """
    plans: list[ShardPlan] = []
    for split in sorted({pair.split for pair in pairs.pairs}):
        own = sorted((p for p in pairs.pairs if p.split == split), key=_place)
        for number, first in enumerate(range(0, len(own), samples_per_shard)):
            file = shard_file(name, split, number)
            plans.append(ShardPlan(file, split, tuple(own[first : first + samples_per_shard]), settings))
    return tuple(plans)


def plan_sha256(plans: Sequence[ShardPlan]) -> str:
    """Hash of a whole plan."""
    return sha256_bytes(canonical_json([plan.sha256 for plan in plans]))


def _place(pair: Pair) -> tuple[str, int, str, int]:
    return pair.input.path, pair.input.start, pair.target.path, pair.target.start

"""Pairs into a dataset: the plan, what is left of it, and the publication. Which runner does the work is passed in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import EncodeConfig
from pipeline.pairing import Pairs
from pipeline.plan import ShardPlan, ShardSettings, plan_sha256, plan_shards
from pipeline.shard import encode_shard, finished
from shards.audio import LIBSNDFILE_VERSION
from shards.build import make_build
from shards.codec import Codec
from shards.errors import CascadenceError, MisuseError
from shards.files import write_bytes
from shards.latents import STORED_DTYPE
from shards.manifest import MANIFEST, REJECTS, partial_folder, read_manifest
from shards.publish import DatasetHeader, publish
from shards.schema import Build, Manifest, Receipt

Runner = Callable[[Sequence[ShardPlan], EncodeConfig, Path], Iterable[Receipt]]
"""Makes the planned shards under a folder, in any order: in this process, or by Ray actors (`pipeline.job`)."""


@dataclass(frozen=True)
class Outcome:
    """What an encode job did."""

    manifest: Manifest
    encoded_shards: int
    kept_shards: int


def encode_dataset(
    pairs: Pairs, folder: Path, config: EncodeConfig, runner: Runner, on_receipt: Callable[[Receipt, int], None]
) -> Outcome:
    """Encode the pairs into the dataset `folder`; shards that an earlier run finished are kept.

    `on_receipt` hears of every finished shard, and of how many shards there are. Raises `MisuseError` where
    `folder` holds another dataset (they are immutable), `CodecError` for codes of a codec without a quantizer, and
    `CascadenceError` past `max_reject_fraction`.
    """
    # Loaded here even where actors load their own: missing weights are one error, before any worker starts.
    codec = config.codec.load()
    stored = codec.quantized_spec if config.output.latents == "codes" else codec.spec
    settings = ShardSettings(
        root=pairs.header.root,
        window_samples=pairs.header.window_samples,
        codec=stored,
        latents=config.output.latents,
        audio=config.output.audio_sides,
        screening=config.screening,
        pairing=pairs.header.mode,
        pairing_seed=pairs.header.seed,
    )
    name = config.output.name or folder.name
    plans = plan_shards(pairs, settings, name, config.output.samples_per_shard)
    if (folder / MANIFEST).exists():
        return _already_published(folder, plans)
    if folder.exists():
        raise MisuseError(f"{folder}: exists and is no dataset; choose another --out, or remove it")
    staging = partial_folder(folder)
    done = {plan.file: receipt for plan in plans if (receipt := finished(plan, staging)) is not None}
    todo = [plan for plan in plans if plan.file not in done]
    for receipt in done.values():
        on_receipt(receipt, len(plans))
    kept = len(done)
    for receipt in runner(todo, config, staging) if todo else ():
        done[receipt.shard] = receipt
        on_receipt(receipt, len(plans))
    receipts = [done[plan.file] for plan in plans]
    _check_rejects(staging, receipts, config.max_reject_fraction)
    header = DatasetHeader(
        name=name,
        codec=stored,
        dtype=STORED_DTYPE[config.output.latents],
        audio=config.output.audio_sides,
        window_samples=pairs.header.window_samples,
        pairing=pairs.header.model_dump(exclude={"root", "format", "version"}),
        build=_build(codec, config, plans),
    )
    _remove_leftovers(staging, plans, receipts)
    return Outcome(publish(folder, header, receipts), len(todo), kept)


def encode_locally(plans: Sequence[ShardPlan], config: EncodeConfig, staging: Path) -> Iterator[Receipt]:
    """Make the planned shards one after another in this process: the runner without Ray."""
    codec = config.codec.load()
    for plan in plans:
        yield encode_shard(plan, codec, staging)


def _already_published(folder: Path, plans: Sequence[ShardPlan]) -> Outcome:
    manifest = read_manifest(folder)
    if manifest.build.config.get("plan_sha256") != plan_sha256(plans):
        raise MisuseError(
            f"{folder}: holds a dataset made from other pairs or settings, and datasets are immutable; "
            "choose another --out, or remove it"
        )
    return Outcome(manifest, 0, len(plans))


def _check_rejects(staging: Path, receipts: Sequence[Receipt], limit: float) -> None:
    rejects = [reject for receipt in receipts for reject in receipt.rejected]
    total = len(rejects) + sum(receipt.samples for receipt in receipts)
    write_bytes(staging / REJECTS, "".join(r.model_dump_json() + "\n" for r in rejects).encode())
    if rejects and (len(rejects) == total or len(rejects) > limit * total):
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(r.reason for r in rejects).items())
        raise CascadenceError(
            f"{len(rejects)} of {total} pairs were refused ({reasons}; first: {rejects[0].detail}); mend or remove "
            f"them (all are listed in {staging / REJECTS}), or raise --max-reject-fraction"
        )


def _remove_leftovers(staging: Path, plans: Sequence[ShardPlan], receipts: Sequence[Receipt]) -> None:
    """Delete what killed encoders, or earlier runs with other plans, left: it would be published with the rest."""
    wanted = {plan.receipt for plan in plans} | {receipt.shard for receipt in receipts if receipt.samples}
    found = [path for pattern in ("*/*.tar*", "receipts/*", "index/*", "*.tmp.*") for path in staging.glob(pattern)]
    for path in found:
        if path.relative_to(staging).as_posix() not in wanted:
            path.unlink(missing_ok=True)


def _build(codec: Codec, config: EncodeConfig, plans: Sequence[ShardPlan]) -> Build:
    packages = ["cascadence", "numpy", "torch", "soundfile", "soxr"] + ["encodec"] * (codec.spec.name == "encodec")
    content = {**config.model_dump(mode="json"), "plan_sha256": plan_sha256(plans)}
    content["codec"].pop("weights")  # a path of this machine; the manifest's codec holds the weights' hash
    return make_build(packages, content, {"libsndfile": LIBSNDFILE_VERSION})

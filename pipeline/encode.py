"""Pairs into a dataset: the plan, what is left of it, and the publication. Which runner does the work is passed in."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pipeline.config import EncodeConfig
from pipeline.destination import Destination, open_destination
from pipeline.encoder import choose_device, make_encoder
from pipeline.observer import Observer
from pipeline.pairing import Pairs
from pipeline.plan import ShardPlan, ShardSettings, plan_sha256, plan_shards
from pipeline.resume import finished_shards
from pipeline.shard import encode_shard
from pipeline.space import dataset_bytes
from pipeline.stopping import Stop
from shards.audio import LIBSNDFILE_VERSION
from shards.build import make_build
from shards.codec import Codec
from shards.errors import CascadenceError, Interrupted, MisuseError
from shards.latents import STORED_DTYPE
from shards.manifest import MANIFEST, REJECTS, parse_manifest
from shards.publish import DatasetHeader, write_documents
from shards.schema import Build, Manifest, Receipt, Reject


class Advance(NamedTuple):
    """How far a shard is that is being made, from 0 to 1."""

    shard: str
    done: float


Runner = Callable[[Sequence[ShardPlan], EncodeConfig, Destination, Stop], Iterator[Advance | Receipt]]
"""Makes the planned shards, in any order, and begins none after a stop: here, or by Ray actors (`pipeline.job`)."""


@dataclass(frozen=True)
class Outcome:
    """What an encode job did; without a manifest where `--only` left shards to make."""

    manifest: Manifest | None
    shards: int
    encoded_shards: int
    kept_shards: int
    rejected: tuple[Reject, ...]


def encode_dataset(
    pairs: Pairs,
    out: Path | str,
    config: EncodeConfig,
    runner: Runner,
    observer: Observer | None = None,
    *,
    only: Sequence[str] = (),
    overwrite: bool = False,
    stop: Stop | None = None,
) -> Outcome:
    """Encode the pairs into the dataset `out`, a folder or a URL; shards that an earlier run finished are kept.

    `only` names shards to make, whether they are there or not; in a published dataset they are put in their places
    again. `overwrite` replaces a dataset that is there. Raises `MisuseError` where `out` holds another dataset or a
    name of `only` is no shard, `CodecError` for codes of a codec without a quantizer, `CascadenceError` past
    `max_reject_fraction` or where another job is at work on `out`, and `Interrupted` after a stop.
    """
    # Loaded here even where actors load their own: missing weights are one error, before any worker starts.
    codec = config.codec.load()
    destination = open_destination(out)
    name = config.output.name or destination.name
    plans = plan_dataset(pairs, config, codec, name)
    job = _Job(plans, config, destination, runner, observer or Observer(), stop or Stop())
    chosen = _choose(plans, only)
    with destination.claim():
        published = destination.manifest()
        if published is not None and not overwrite:
            manifest = parse_manifest(published, f"{destination}/{MANIFEST}")
            _require_same_plan(manifest, plans, destination)
            return job.repair(manifest, chosen if only else ())
        if published is not None:
            destination.unpublish()
        header = DatasetHeader(
            name=name,
            codec=plans[0].settings.codec,
            dtype=STORED_DTYPE[config.output.latents],
            audio=config.output.audio_sides,
            window_samples=pairs.header.window_samples,
            pairing=pairs.header.model_dump(exclude={"root", "format", "version"}, exclude_none=True),
            build=_build(codec, config, plans),
        )
        return job.run(chosen if only else None, header)


@dataclass(frozen=True)
class _Job:
    """A planned job, and the world it works in."""

    plans: Sequence[ShardPlan]
    config: EncodeConfig
    destination: Destination
    runner: Runner
    observer: Observer
    stop: Stop

    def run(self, only: Sequence[ShardPlan] | None, header: DatasetHeader) -> Outcome:
        """Make what is not there yet, or `only` some shards; publish once all are there."""
        done = finished_shards(self.plans, self.destination)
        todo = [plan for plan in self.plans if plan.file not in done] if only is None else only
        for plan in todo:
            done.pop(plan.file, None)
        kept = len(done)
        _require_room(self.destination, todo, self.config.output.samples_per_shard)
        self.observer.planned(self.plans if only is None else todo)
        if only is None:
            for receipt in done.values():
                self.observer.kept(receipt)
        made = self._make(todo, self.destination)
        done |= made
        rejected = tuple(reject for plan in self.plans if plan.file in done for reject in done[plan.file].rejected)
        if len(done) < len(self.plans):
            return Outcome(None, len(self.plans), len(made), kept, rejected)
        receipts = [done[plan.file] for plan in self.plans]
        _check_rejects(self.destination, receipts, rejected, self.config.max_reject_fraction)
        _remove_leftovers(self.destination, self.plans, receipts)
        with self.destination.workspace() as folder:
            manifest = write_documents(folder, header, receipts)
        self.destination.publish()
        return Outcome(manifest, len(self.plans), len(made), kept, rejected)

    def repair(self, manifest: Manifest, only: Sequence[ShardPlan]) -> Outcome:
        """Make some shards of a published dataset again, each only if it comes out as the manifest says."""
        hashes = {shard.file: shard.sha256 for split in manifest.splits.values() for shard in split.shards}
        for plan in only:
            if plan.file not in hashes:
                raise MisuseError(f"--only {plan.file}: every pair of this shard was refused, so there is no file")
        todo = [replace(plan, expected_sha256=hashes[plan.file]) for plan in only]
        self.observer.planned(todo)
        made = self._make(todo, self.destination.repair())
        return Outcome(manifest, len(self.plans), len(made), len(self.plans) - len(made), ())

    def _make(self, todo: Sequence[ShardPlan], destination: Destination) -> dict[str, Receipt]:
        made: dict[str, Receipt] = {}
        for event in self.runner(todo, self.config, destination, self.stop) if todo else ():
            if isinstance(event, Receipt):
                made[event.shard] = event
                self.observer.finished(event)
            else:
                self.observer.advanced(*event)
        if len(made) < len(todo):
            raise Interrupted(
                f"stopped; {len(made)} of {len(todo)} shards were finished, and the same command goes on with the rest",
                self.stop.exit_code,
            )
        return made


def encode_locally(
    plans: Sequence[ShardPlan], config: EncodeConfig, destination: Destination, stop: Stop
) -> Iterator[Advance | Receipt]:
    """Make the planned shards one after another in this process, on one core or a GPU: the runner without Ray."""
    import torch

    encoder = make_encoder(config, choose_device(config, torch.cuda.is_available()))
    for plan in plans:
        if stop.signal is not None:
            return
        yield Advance(plan.file, 0)
        for event in encode_shard(plan, encoder, destination, config.encoder.threads(encoder.device)):
            yield event if isinstance(event, Receipt) else Advance(plan.file, event)


def plan_dataset(pairs: Pairs, config: EncodeConfig, codec: Codec, name: str) -> tuple[ShardPlan, ...]:
    """Plan the shards of the dataset `name`. Raises `CodecError` for codes of a codec without a quantizer."""
    settings = ShardSettings(
        root=pairs.header.root,
        window_samples=pairs.header.window_samples,
        codec=codec.quantized_spec if config.output.latents == "codes" else codec.spec,
        latents=config.output.latents,
        audio=config.output.audio_sides,
        screening=config.screening,
        loudness=config.loudness,
        pairing=pairs.header.mode,
        pairing_seed=pairs.header.seed,
    )
    return plan_shards(pairs, settings, name, config.output.samples_per_shard)


def _choose(plans: Sequence[ShardPlan], names: Sequence[str]) -> list[ShardPlan]:
    """Find shards by their file in the dataset, the file's own name, or that without `.tar`."""
    by_name: dict[str, ShardPlan] = {}
    for plan in plans:
        path = PurePosixPath(plan.file)
        by_name |= {plan.file: plan, path.name: plan, path.stem: plan}
    for name in names:
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.0)[0]
            raise MisuseError(f"--only {name}: no shard of this dataset; did you mean {near}?")
    chosen = {by_name[name].file for name in names}
    return [plan for plan in plans if plan.file in chosen]


def _require_same_plan(manifest: Manifest, plans: Sequence[ShardPlan], destination: Destination) -> None:
    if manifest.build.config.get("plan_sha256") != plan_sha256(plans):
        raise MisuseError(
            f"{destination}: holds a dataset made from other pairs or settings, and datasets are immutable; "
            "choose another --out, or replace it with --overwrite"
        )


def _require_room(destination: Destination, todo: Sequence[ShardPlan], samples_per_shard: int) -> None:
    """Raise `CascadenceError` where what is to be written, FLAC apart, can't fit."""
    room = destination.room()
    if not todo or room is None:
        return
    settings, pairs = todo[0].settings, sum(len(plan.pairs) for plan in todo)
    needed = dataset_bytes(pairs, settings.codec, settings.latents, settings.window_samples, (), samples_per_shard)
    if needed > room:
        raise CascadenceError(
            f"{destination}: {pairs} pairs take {needed / 1e9:.3g} GB and {room / 1e9:.3g} GB are free there; make "
            "room, choose another --out, or store less (--latents)"
        )


def _check_rejects(
    destination: Destination, receipts: Sequence[Receipt], rejects: Sequence[Reject], limit: float
) -> None:
    total = len(rejects) + sum(receipt.samples for receipt in receipts)
    destination.write(REJECTS, "".join(r.model_dump_json() + "\n" for r in rejects).encode())
    if rejects and (len(rejects) == total or len(rejects) > limit * total):
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(r.reason for r in rejects).most_common())
        raise CascadenceError(
            f"{len(rejects)} of {total} pairs were refused ({reasons}; first: {rejects[0].detail}); mend or remove "
            f"them and pair again (all are listed in {destination.place(REJECTS)}), or raise --max-reject-fraction"
        )


_OURS = re.compile(r"[^/]+/[^/]+\.tar[^/]*|receipts/[^/]+|index/[^/]+|(.*/)?[^/]+\.tmp\.[^/]+")
"""What a job writes beside its documents; nothing else is ever deleted."""


def _remove_leftovers(destination: Destination, plans: Sequence[ShardPlan], receipts: Sequence[Receipt]) -> None:
    """Delete what killed encoders, or earlier runs with other plans, left: it would be published with the rest."""
    wanted = {plan.receipt for plan in plans} | {receipt.shard for receipt in receipts if receipt.samples}
    destination.remove(name for name in destination.entries() if name not in wanted and _OURS.fullmatch(name))


def _build(codec: Codec, config: EncodeConfig, plans: Sequence[ShardPlan]) -> Build:
    packages = ["cascadence", "numpy", "torch", "soundfile", "soxr"] + ["encodec"] * (codec.spec.name == "encodec")
    content = {**config.model_dump(mode="json"), "plan_sha256": plan_sha256(plans)}
    content["codec"].pop("weights")  # a path of this machine; the manifest's codec holds the weights' hash
    return make_build(packages, content, {"libsndfile": LIBSNDFILE_VERSION})

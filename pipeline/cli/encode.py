"""The command that makes a dataset of shards: `encode`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.meter import Meter
from pipeline.cli.options import (
    AllowUnknownWeights,
    AudioSides,
    CodecName,
    CodecWeights,
    ConfigName,
    Device,
    Latents,
    codec_options,
    encode_settings,
)
from pipeline.stopping import Stop
from shards import console
from shards.cluster import require_lasting
from shards.console import Json, SetOptions
from shards.errors import Interrupted, MisuseError

if TYPE_CHECKING:
    from pipeline.encode import Outcome


def encode(
    pairs: Annotated[Path, typer.Argument(metavar="PAIRS.jsonl", help="A file that `pair` made.")],
    out: Annotated[
        str, typer.Option(metavar="DATASET", help="A folder, or a URL such as s3://bucket/dataset; whole or not there.")
    ],
    codec: CodecName = None,
    codec_weights: CodecWeights = None,
    codec_allow_unknown_weights: AllowUnknownWeights = False,
    latents: Latents = None,
    audio: AudioSides = None,
    loudness: Annotated[
        float | None, typer.Option(metavar="LUFS", help="Bring every track to this loudness; else it stays as it is.")
    ] = None,
    device: Device = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="SHARD", help="Make this shard, there or not; repeatable. Repairs a finished dataset."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a dataset that is there.")] = False,
    max_reject_fraction: Annotated[float | None, typer.Option(help="Fail past this share of refused pairs.")] = None,
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray.")] = False,
    config: ConfigName = None,
    set_: SetOptions = None,
    json: Json = False,
) -> None:
    """Encode pairs through the frozen codec into a dataset of shards; run again after a crash, it goes on.

    Ctrl-C, or SIGTERM, lets the running shards finish; a second one ends at once. Nothing finished is lost.
    """
    from pipeline.encode import encode_dataset, encode_locally
    from pipeline.job import encode_with_ray
    from pipeline.pairing import read_pairs
    from shards.store import is_url

    if only and overwrite:
        raise MisuseError("--only and --overwrite contradict each other; leave one of them out")
    if not is_url(out):
        require_lasting(Path(out), "--out")
    options = codec_options(codec, codec_weights, codec_allow_unknown_weights) | {
        "output.latents": latents,
        "output.audio": audio,
        "encoder.device": device,
        "loudness": loudness,
        "max_reject_fraction": max_reject_fraction,
    }
    settings = encode_settings(config, options, set_)
    plan = read_pairs(pairs)
    meter = Meter(plan.header.window_samples / plan.header.sample_rate)
    stop = Stop(on_request=meter.stopping)
    runner = encode_locally if local else encode_with_ray
    with meter.bar, stop.listening():
        try:
            outcome = encode_dataset(
                plan, out, settings, runner, meter, only=only or (), overwrite=overwrite, stop=stop
            )
        except KeyboardInterrupt:
            raise Interrupted(
                "stopped at once; the same command keeps the finished shards and goes on", stop.exit_code
            ) from None
    _report(out, outcome, json)


def _report(out: str, outcome: Outcome, json: bool) -> None:
    manifest = outcome.manifest
    reasons = dict(Counter(manifest.rejected if manifest else (r.reason for r in outcome.rejected)).most_common())
    samples = sum(entry.samples for entry in manifest.splits.values()) if manifest else None
    if json:
        content: dict[str, Any] = {"out": out, "samples": samples, "rejected": reasons, "shards": outcome.shards}
        content |= {"encoded_shards": outcome.encoded_shards, "kept_shards": outcome.kept_shards}
        console.print_json(content | {"fingerprint": manifest.fingerprint if manifest else None})
        return
    there = outcome.encoded_shards + outcome.kept_shards
    place = console.escape(out)
    if manifest is None:
        console.out.print(
            f"{place}: {there} of {outcome.shards} shards are there; run it without --only to make the rest",
            soft_wrap=True,
        )
        return
    console.out.print(
        f"{place}: {samples} pairs in {there} shards ({outcome.kept_shards} kept from before), "
        f"{sum(reasons.values())} refused",
        soft_wrap=True,
    )
    if reasons:
        first = {reject.reason: reject.detail for reject in reversed(outcome.rejected)}
        rows = [(reason, count, first.get(reason, "")) for reason, count in reasons.items()]
        console.table(("refused", "pairs", "for example"), rows)
        console.out.print(f"all refused pairs are listed in {place}/rejects.jsonl", soft_wrap=True)

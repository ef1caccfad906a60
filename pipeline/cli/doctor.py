"""The command that examines a machine before a job: `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

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
from shards import console
from shards.console import Json, SetOptions
from shards.errors import printable

if TYPE_CHECKING:
    from pipeline.doctor.finding import Finding

STYLES = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}


def doctor(
    pairs: Annotated[Path | None, typer.Argument(metavar="PAIRS.jsonl", help="The pairs of a job to come.")] = None,
    out: Annotated[str | None, typer.Option(metavar="DATASET", help="The folder or URL it is to write.")] = None,
    codec: CodecName = None,
    codec_weights: CodecWeights = None,
    codec_allow_unknown_weights: AllowUnknownWeights = False,
    latents: Latents = None,
    audio: AudioSides = None,
    device: Device = None,
    ray: Annotated[bool, typer.Option(help="Try Ray, too; off for a job with --local.")] = True,
    config: ConfigName = None,
    set_: SetOptions = None,
    json: Json = False,
) -> None:
    """Examine this machine before a job: codec, speed, disk, memory, Ray. Exits with 1 where a check failed.

    Give it the options of the job. It encodes a test sound, fetches weights that are missing, and leaves nothing.
    """
    from pipeline.doctor.case import Case
    from pipeline.doctor.checkup import checks_for, examine

    options = codec_options(codec, codec_weights, codec_allow_unknown_weights) | {
        "output.latents": latents,
        "output.audio": audio,
        "encoder.device": device,
    }
    settings = encode_settings(config, options, set_)
    case = Case(settings, pairs, out, ray)
    with console.progress("checks") as bar:
        findings = list(bar.track(examine(case), total=len(checks_for(case)), description="examining"))
    counts = {status: sum(finding.status == status for finding in findings) for status in STYLES}
    if json:
        console.print_json({"checks": [finding.as_json() for finding in findings], "counts": counts})
    else:
        console.table(("check", "status", "found, and what to do"), [_row(finding) for finding in findings])
    if counts["failed"]:
        raise typer.Exit(1)


def _row(finding: Finding) -> tuple[str, Text, Text]:
    style = STYLES[finding.status]
    found = Text(printable(finding.value))
    if finding.mend:
        found.append(f"\n{printable(finding.mend)}", style)
    return finding.name, Text(finding.status, style), found

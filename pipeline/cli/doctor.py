"""The command that examines a machine before a job: `doctor`."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from shards import console
from shards.console import Json, SetOptions
from shards.errors import printable

if TYPE_CHECKING:
    from pipeline.doctor.finding import Finding

STYLES = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}


def doctor(
    pairs: Annotated[Path | None, typer.Argument(metavar="PAIRS.jsonl", help="The pairs of a job to come.")] = None,
    out: Annotated[str | None, typer.Option(metavar="DATASET", help="The folder or URL it is to write.")] = None,
    codec: Annotated[Literal["encodec", "mdct"] | None, typer.Option(help="encodec unless set.")] = None,
    codec_weights: Annotated[Path | None, typer.Option(help="EnCodec's weights file.")] = None,
    codec_allow_unknown_weights: Annotated[
        bool, typer.Option("--codec-allow-unknown-weights", help="Take weights with another hash.")
    ] = False,
    latents: Annotated[Literal["float16", "float32", "codes"] | None, typer.Option(help="float16 unless set.")] = None,
    audio: Annotated[Literal["none", "target", "both"] | None, typer.Option(help="Sides stored as FLAC.")] = None,
    device: Annotated[Literal["auto", "cpu", "gpu"] | None, typer.Option(help="auto unless set.")] = None,
    ray: Annotated[bool, typer.Option(help="Try Ray, too; off for a job with --local.")] = True,
    config: Annotated[str | None, typer.Option(help="A configuration's name or file.")] = None,
    set_: SetOptions = None,
    json: Json = False,
) -> None:
    """Examine this machine before a job: codec, speed, disk, memory, Ray. Exits with 1 where a check failed.

    Give it the options of the job. It encodes a test sound, fetches weights that are missing, and leaves nothing.
    """
    from pipeline.config import CONFIGS, EncodeConfig
    from pipeline.doctor.case import Case
    from pipeline.doctor.checkup import checks_for, examine
    from shards.settings import find_config, load_settings

    options = {
        "codec.name": codec,
        "codec.weights": str(codec_weights) if codec_weights else None,
        "codec.allow_unknown_weights": codec_allow_unknown_weights or None,
        "output.latents": latents,
        "output.audio": audio,
        "encoder.device": device,
    }
    given = [f"{key}={jsonlib.dumps(value)}" for key, value in options.items() if value is not None]
    settings = load_settings(EncodeConfig, find_config(CONFIGS, config) if config else None, given + (set_ or []))
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

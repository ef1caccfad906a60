"""The verb that makes a dataset a page for people: `report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shards import audit, console
from shards.cli.arguments import CodecWeights, DatasetFolder
from shards.console import Json
from shards.errors import CodecError, MisuseError
from shards.files import write_bytes
from shards.schema import CodecSpec

if TYPE_CHECKING:
    from shards.report.players import Decode


def report(
    dataset: DatasetFolder,
    out: Annotated[Path, typer.Option(help="The page to write; an older one is replaced.")],
    samples: Annotated[int, typer.Option(min=0, help="Pairs in the gallery; 0 for none, and no sound.")] = 8,
    level: Annotated[audit.Level, typer.Option(help="How deep to verify, as in `verify`.")] = "sha256",
    codec_weights: CodecWeights = None,
    json: Json = False,
) -> None:
    """Write one HTML page: health, contents, histograms, pairs to hear and see; exits with 1 when anything is wrong."""
    # Here and not above: the other verbs need no template engine.
    from shards.report.collect import collect
    from shards.report.render import render
    from shards.report.salvage import open_damaged

    _check_out(out, dataset)
    opened = open_damaged(dataset)
    decode, silent_because = _decoder(opened.codec, codec_weights, opened.manifest.name) if samples else (None, None)
    with console.progress("steps") as bar:
        task = bar.add_task("verifying", total=len(opened.manifest.shards), note="")
        result = audit.verify(dataset, level, on_shard=lambda: bar.advance(task))
        task = bar.add_task("gathering pairs", total=samples, note="")
        content = collect(opened, result, samples, decode, on_card=lambda: bar.advance(task))
    page = render(content).encode()
    write_bytes(out, page)
    ok = not result.problems
    if silent_because:
        console.err.print(f"[yellow]without sound:[/] {console.escape(silent_because)}", soft_wrap=True)
    if json:
        console.print_json({"out": str(out), "bytes": len(page), "samples": len(content.gallery), "ok": ok})
    else:
        verdict = "is [green]sound[/]" if ok else f"has [red]{len(result.problems)} problems[/]"
        size = f"{len(content.gallery)} pairs, {len(page) / 1e6:.1f} MB"
        console.out.print(f"{console.escape(str(out))}: {size}; the dataset {verdict}", soft_wrap=True)
    if not ok:
        raise typer.Exit(1)


def _check_out(out: Path, dataset: Path) -> None:
    if out.is_dir():
        raise MisuseError(f"{out}: is a folder; name the page, as in --out {out / 'report.html'}")
    if out.resolve().is_relative_to(dataset.resolve()):
        raise MisuseError(f"{out}: lies in the dataset, and datasets are immutable; write the page somewhere else")


def _decoder(codec: CodecSpec, weights: Path | None, owner: str) -> tuple[Decode | None, str | None]:
    """Load the codec, or say why there will be no sound. Weights that are given must fit."""
    from shards.report.players import load_decoder

    try:
        return load_decoder(codec, weights, owner), None
    except CodecError as error:
        if weights is not None:
            raise
        return None, str(error)

"""The verb that holds the index against the tars: `index`."""

from __future__ import annotations

from typing import Annotated

import typer

from shards import console
from shards.cli.arguments import DatasetFolder
from shards.console import Json
from shards.manifest import index_file, read_manifest
from shards.mends import mend_index
from shards.reindex import SplitIndex, check_index, rebuild_index


def index(
    dataset: DatasetFolder,
    rebuild: Annotated[
        bool, typer.Option("--rebuild/--check", help="Write what differs; only checking is the default.")
    ] = False,
    json: Json = False,
) -> None:
    """Check the saved index against the tars, or rebuild it.

    Only tars that are, byte for byte, those of the manifest are taken. A rebuild of them gives the same bytes, and
    then nothing else changes; where it does not (another version wrote the index), the manifest takes a new
    index_sha256 and with it a new fingerprint.
    """
    shards = len(read_manifest(dataset).shards)
    with console.progress("shards") as bar:
        task = bar.add_task("indexing", total=shards, note="")
        if rebuild:
            done = rebuild_index(dataset, on_shard=lambda: bar.advance(task))
        else:
            checked = check_index(dataset, on_shard=lambda: bar.advance(task))
    if not rebuild:
        _tell_check(str(dataset), checked, json)
        return
    changed = done.fingerprint != done.previous_fingerprint
    if json:
        document = {"written": list(done.written), "fingerprint": done.fingerprint, "fingerprint_changed": changed}
        console.print_json(document)
        return
    what = f"wrote {', '.join(done.written)}" if done.written else "sound, nothing written"
    console.out.print(console.escape(f"{dataset}: {what}"), soft_wrap=True)
    if changed:
        console.out.print(f"the fingerprint is now {done.fingerprint}: states of loaders saved before are refused")


def _tell_check(dataset: str, checked: list[SplitIndex], json: bool) -> None:
    bad = [one for one in checked if one.problem]
    if json:
        console.print_json({"ok": not bad, "splits": [one.as_json() for one in checked]})
    for one in bad if not json else ():
        line = f"{index_file(one.split)}: {one.problem}; {mend_index(dataset)}"
        console.err.print(f"[red]bad[/] {console.escape(line)}", soft_wrap=True)
        for row in one.differences:
            line = f"    {one.split}:{row.number} {row.key} {row.column}: saved {row.saved}, rebuilt {row.rebuilt}"
            console.err.print(console.escape(line), soft_wrap=True)
    if not json:
        verdict = f"[red]{len(bad)} indexes differ[/]" if bad else "[green]sound[/]"
        rows = sum(one.rows for one in checked)
        console.out.print(
            f"{console.escape(dataset)}: {verdict}: {len(checked)} indexes, {rows} samples", soft_wrap=True
        )
    if bad:
        raise typer.Exit(1)

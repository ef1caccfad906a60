"""The verbs that make new datasets of old ones: `repack`, `merge`, `split`, `subset`. None of them imports torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from shards import console, derive
from shards.cli.arguments import DatasetAddress
from shards.console import Json
from shards.dataset import Dataset, open_dataset
from shards.errors import Interrupted, MisuseError
from shards.files import canonical_json, sha256_bytes
from shards.rewrite import Rewrite, check_latents, check_output, rewrite
from shards.schema import Manifest

SAMPLES_PER_SHARD = 256

Out = Annotated[Path, typer.Option(metavar="NEW", help="The new dataset's folder; it appears when all of it is there.")]
PerShard = Annotated[int, typer.Option(min=1, metavar="N", help="Pairs in each shard.")]


def repack(
    dataset: DatasetAddress,
    out: Out,
    samples_per_shard: PerShard = SAMPLES_PER_SHARD,
    latents: Annotated[Literal["float16", "float32"] | None, typer.Option(help="Another type of latents.")] = None,
    shuffle: Annotated[int | None, typer.Option(min=0, metavar="SEED", help="Mix each split's pairs.")] = None,
    json: Json = False,
) -> None:
    """Write a dataset anew: other shard sizes, another type of latents, another order."""
    check_output(out)
    source = open_dataset(dataset)
    check_latents(source, latents)
    splits = derive.all_samples([source])
    if shuffle is not None:
        splits = derive.shuffled(splits, shuffle)
    options: dict[str, object] = {"latents": latents, "shuffle": shuffle}
    pairing = source.manifest.pairing
    held = source.manifest.fields[0].dtype
    notes = []
    if latents == "float32" and held == "float16":
        notes.append("float32 does not bring back what float16 lost: cast_snr_db stays as it was")
    _make(Rewrite("repack", (source,), splits, options, pairing, samples_per_shard, latents), out, json, notes)


def merge(
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET", help="Two datasets or more: folders, or URLs.")],
    out: Out,
    samples_per_shard: PerShard = SAMPLES_PER_SHARD,
    json: Json = False,
) -> None:
    """Join datasets of one codec, split by split; pairs that are equal to the byte are kept once."""
    check_output(out)
    sources = tuple(open_dataset(path) for path in datasets)
    fingerprints = [source.manifest.fingerprint for source in sources]
    if len(sources) < 2:
        raise MisuseError(f"{datasets[0]}: one dataset alone can't be merged; name another")
    for place, source in enumerate(sources):
        if (first := fingerprints.index(fingerprints[place])) < place:
            raise MisuseError(f"{source.address}: holds the same as {sources[first].address}; name each dataset once")
    derive.check_alike(sources)
    derive.check_tracks(sources, _read_tracks(sources))
    splits, repeated = derive.deduplicated(sources, derive.all_samples(sources))
    notes = [f"{repeated} pairs were there twice and are kept once"] if repeated else []
    pairing = derive.merged_pairing(sources)
    _make(Rewrite("merge", sources, splits, {}, pairing, samples_per_shard), out, json, notes)


def split_dataset(
    dataset: DatasetAddress,
    out: Out,
    fraction: Annotated[
        list[str], typer.Option(metavar="NAME=SHARE", help="Share of the pairs for a split, as val=0.1; repeatable.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Draws the tracks.")] = 0,
    samples_per_shard: PerShard = SAMPLES_PER_SHARD,
    json: Json = False,
) -> None:
    """Divide all pairs into splits anew, whole tracks at a time; what no share asks for is train."""
    check_output(out)
    shares = parse_fractions(fraction)
    source = open_dataset(dataset)
    splits = derive.by_track(source, _read_tracks([source])[0], shares, seed)
    options: dict[str, object] = {"fractions": shares, "seed": seed}
    _make(Rewrite("split", (source,), splits, options, source.manifest.pairing, samples_per_shard), out, json)


def subset(
    dataset: DatasetAddress,
    out: Out,
    keys: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep only these keys, one a line.")] = None,
    drop: Annotated[Path | None, typer.Option(metavar="FILE", help="Leave out these keys, one a line.")] = None,
    split: Annotated[str | None, typer.Option(help="Keep only this split.")] = None,
    samples_per_shard: PerShard = SAMPLES_PER_SHARD,
    json: Json = False,
) -> None:
    """Keep some pairs of a dataset: listed ones, all but listed ones, or one split."""
    check_output(out)
    if keys is None and drop is None and split is None:
        raise MisuseError("nothing says which pairs to keep; give --keys, --drop or --split")
    source = open_dataset(dataset)
    kept = None if keys is None else read_keys(keys)
    dropped = () if drop is None else read_keys(drop)
    splits = derive.subset(source, kept, dropped, split)
    options: dict[str, object] = {
        "keys_sha256": None if kept is None else sha256_bytes(canonical_json(sorted(set(kept)))),
        "drop_sha256": sha256_bytes(canonical_json(sorted(set(dropped)))) if dropped else None,
        "split": split,
    }
    _make(Rewrite("subset", (source,), splits, options, source.manifest.pairing, samples_per_shard), out, json)


def parse_fractions(texts: Sequence[str]) -> dict[str, float]:
    """Read shares such as `val=0.1`. Raises `MisuseError` unless they are well-formed and make at most a whole."""
    shares: dict[str, float] = {}
    for text in texts:
        matched = re.fullmatch(r"(\w[\w-]*)=(\d*\.?\d+)", text, re.ASCII)
        if matched is None or not 0 < float(matched[2]) < 1:
            raise MisuseError(f"--fraction {text}: not a split's name and a share between 0 and 1; write val=0.1")
        if matched[1] in shares:
            raise MisuseError(f"--fraction {text}: {matched[1]} has a share already; name each split once")
        shares[matched[1]] = float(matched[2])
    total = sum(shares.values())
    if total > 1 + 1e-9:
        raise MisuseError(f"--fraction: the shares make {total:g} together; make them at most 1")
    if "train" in shares and total < 1 - 1e-9:
        raise MisuseError(f"--fraction: the shares make {total:g}, and train takes the rest; leave train out")
    return shares


def read_keys(path: Path) -> tuple[str, ...]:
    """Read keys, one a line; empty lines and those that begin with `#` say nothing.

    Raises `MisuseError` where the file is missing or no text.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise MisuseError(f"{path}: there is no such file; write keys into it, one a line") from None
    except UnicodeDecodeError:
        raise MisuseError(f"{path}: not a text file; write keys into it, one a line") from None
    return tuple(line for line in lines if line and not line.startswith("#"))


def _read_tracks(sources: Sequence[Dataset]) -> list[derive.Tracks]:
    with _stoppable(), console.progress("pairs") as bar:
        total = sum(source.manifest.samples for source in sources)
        task = bar.add_task("reading tracks", total=total, note="")
        return [derive.read_tracks(source, lambda: bar.advance(task)) for source in sources]


def _make(job: Rewrite, out: Path, json: bool, notes: Sequence[str] = ()) -> None:
    with _stoppable(), console.progress("pairs") as bar:
        task = bar.add_task("writing", total=job.samples, note="")
        manifest = rewrite(job, out, lambda receipt: bar.advance(task, receipt.samples))
    summary = _summary(manifest, out)
    if json:
        console.print_json({**summary, "verb": job.verb, "notes": list(notes)})
        return
    for note in notes:
        console.err.print(f"[yellow]note:[/] {console.escape(note)}", soft_wrap=True)
    splits = ", ".join(f"{name} {count}" for name, count in summary["splits"].items())
    console.out.print(
        f"{console.escape(str(out))}: {summary['samples']} pairs ({splits}) in {summary['shards']} shards, "
        f"{summary['bytes'] / 1e6:.1f} MB, fingerprint {manifest.fingerprint[:12]}",
        soft_wrap=True,
    )


def _summary(manifest: Manifest, out: Path) -> dict[str, Any]:
    return {
        "out": str(out),
        "samples": manifest.samples,
        "splits": {name: entry.samples for name, entry in manifest.splits.items()},
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "fingerprint": manifest.fingerprint,
        "parents": list(manifest.parents),
    }


@contextmanager
def _stoppable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("stopped; nothing was made") from None

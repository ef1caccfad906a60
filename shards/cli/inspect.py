"""The verbs that look and change nothing: `info`, `list`, `show`. None of them imports torch."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import typer

from shards import console
from shards.cli.arguments import DatasetAddress, SampleName
from shards.console import Json
from shards.dataset import Dataset, describe_codec, open_dataset
from shards.filters import EXAMPLE, apply_filter, parse_filter
from shards.index import INDEXED_MEMBERS
from shards.locate import Location
from shards.schema import SIDES


def info(dataset: DatasetAddress, json: Json = False) -> None:
    """Summarise a dataset: pairs, hours, size, codec, provenance."""
    summary = _summary(open_dataset(dataset))
    if json:
        console.print_json(summary)
        return
    build = summary["build"]
    console.facts(
        summary["name"],
        [
            ("path", dataset),
            ("pairs", summary["samples"]),
            ("audio", f"{summary['hours']:.3f} h, both sides {2 * summary['hours']:.3f} h"),
            ("window", f"{summary['seconds']:g} s, latents {summary['shape']} {summary['dtype']}"),
            ("audio as FLAC", ", ".join(summary["audio"]) or "none"),
            ("size", f"{summary['bytes'] / 1e6:.1f} MB"),
            ("codec", summary["codec_description"]),
            ("pairing", ", ".join(f"{k} {v}" for k, v in summary["pairing"].items() if k != "pairs_sha256")),
            ("refused", ", ".join(f"{n} {reason}" for reason, n in summary["rejected"].items()) or "none"),
            ("fingerprint", summary["fingerprint"]),
            ("built by", ", ".join(f"{k} {v}" for k, v in build["versions"].items())),
        ],
    )
    rows = [
        (split, e["samples"], e["groups"], f"{e['hours']:.3f}", e["shards"], f"{e['bytes'] / 1e6:.1f}")
        for split, e in summary["splits"].items()
    ]
    console.table(("split", "pairs", "tracks", "hours", "shards", "MB"), rows)


def _summary(dataset: Dataset) -> dict[str, Any]:
    manifest = dataset.manifest
    seconds = manifest.window_samples / dataset.codec.sample_rate
    splits = {
        split: {
            "samples": entry.samples,
            "groups": entry.groups,
            "hours": entry.samples * seconds / 3600,
            "shards": len(entry.shards),
            "bytes": sum(shard.bytes for shard in entry.shards),
        }
        for split, entry in dataset.splits.items()
    }
    content = manifest.model_dump(mode="json", exclude={"splits", "fields"})
    return {
        **content,
        "path": dataset.address,
        "samples": sum(entry["samples"] for entry in splits.values()),
        "hours": sum(entry["hours"] for entry in splits.values()),
        "bytes": sum(entry["bytes"] for entry in splits.values()),
        "seconds": seconds,
        "shape": list(manifest.fields[0].shape),
        "dtype": manifest.fields[0].dtype,
        "codec_description": describe_codec(dataset.codec),
        "splits": splits,
    }


def list_samples(
    dataset: DatasetAddress,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="FILTER", help=f"Only samples that it holds for: '{EXAMPLE}', 'key=3f and position>=10'."),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most this many; 0 for all.")] = 20,
    json: Json = False,
) -> None:
    """List samples: key, place, level; --where filters them.

    FILTER compares columns of the index (input_rms, target_rms, rms for either side, position, shard, split, number,
    bytes, the start of a key, ...) by < <= > >= = !=, joined with 'and'.
    """
    opened = open_dataset(dataset)
    comparisons = parse_filter(where) if where is not None else ()
    rows: list[dict[str, Any]] = []
    total = 0
    for name in [split] if split else list(opened.splits):
        shards = opened.split(name).shards
        index = opened.index(name)
        numbers = apply_filter(comparisons, name, shards, index)
        total += len(numbers)
        kept = numbers[: limit - len(rows)] if limit else numbers
        rows += [_listed(name, shards[row["shard"]].file, row) for row in index[kept]]
    if json:
        console.print_json({"total": total, "samples": rows})
        return
    columns = ("key", "shard#position", "KiB", "input RMS", "target RMS")
    console.table(
        columns,
        [
            (
                r["key"],
                f"{r['shard']}#{r['position']}",
                f"{r['bytes'] / 1024:.0f}",
                f"{r['input_rms']:.4f}",
                f"{r['target_rms']:.4f}",
            )
            for r in rows
        ],
    )
    if len(rows) < total:
        console.out.print(f"{len(rows)} of {total}; --limit 0 shows all", style="dim")


def _listed(split: str, shard: str, row: Any) -> dict[str, Any]:
    return {
        "key": row["key"].decode(),
        "split": split,
        "shard": shard,
        "position": int(row["position"]),
        "bytes": sum(int(row[f"{member}_bytes"]) for member in INDEXED_MEMBERS),
        "input_rms": round(float(row["input_rms"]), 6),
        "target_rms": round(float(row["target_rms"]), 6),
    }


def show(
    dataset: DatasetAddress,
    sample: SampleName,
    json: Json = False,
) -> None:
    """Show one sample: its record and its arrays' statistics."""
    opened = open_dataset(dataset)
    place = opened.locate(sample)
    content = _content(opened, place)
    if json:
        console.print_json(content)
        return
    console.facts(place.key, [("split", place.split), ("shard", f"{place.shard.file}#{place.position}")])
    record = content["record"]
    rows = []
    for side in SIDES:
        source = {k: v for k, v in record[side].items() if k != "envelope"}
        rows += [(f"{side}.{name}", value) for name, value in source.items()]
        rows += [(f"{side}.{content['stored']}.{name}", value) for name, value in content["arrays"][side].items()]
        if side in content["flac_bytes"]:
            rows.append((f"{side}.flac.bytes", content["flac_bytes"][side]))
    console.facts("", rows + [(k, v) for k, v in record.items() if k not in SIDES])


def _content(dataset: Dataset, place: Location) -> dict[str, Any]:
    sample = dataset.read(place)
    return {
        "split": place.split,
        "shard": place.shard.file,
        "position": place.position,
        "record": sample.record.model_dump(mode="json"),
        "stored": "codes" if dataset.codec.stage == "quantized" else "latents",
        "arrays": {side: _describe(getattr(sample, side)) for side in SIDES},
        "flac_bytes": {side: len(flac) for side, flac in sample.audio.items()},
    }


def _describe(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    if array.dtype.kind == "i":  # codes are names: a mean of them means nothing
        return {
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "min": int(array.min()),
            "max": int(array.max()),
            "distinct": [len(np.unique(row)) for row in array],
        }
    values = array.astype(np.float64)
    return {
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
        "finite": bool(np.isfinite(values).all()),
    }

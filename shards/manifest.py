"""The manifest: the document that makes a folder of shards a dataset, and the card generated from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pydantic

from shards.errors import CascadenceError, DatasetError, printable
from shards.files import canonical_json, parse_json, sha256_bytes, write_bytes, write_json
from shards.schema import FORMAT_NAME, SCHEMA_VERSION, SIDES, CodecSpec, Manifest, Receipt
from shards.wire import layout

MANIFEST = "dataset.json"
STATISTICS = "stats.json"
CARD = "README.md"
REJECTS = "rejects.jsonl"

_SPLIT_NAME = re.compile(r"(?!\.)[^/\\\s\x00-\x1f]+")
_FILE_NAME = re.compile(r"((?!\.)[^/\\\x00-\x1f]+/)*(?!\.)[^/\\\x00-\x1f]+")


def codec_fingerprint(codec: CodecSpec) -> str:
    """Name a codec by everything that its latents depend on."""
    return sha256_bytes(canonical_json(codec.model_dump()))[:16]


def fingerprint(content: dict[str, Any]) -> str:
    """SHA-256 of a manifest's content: equal for equal data, whoever wrote it, where and when.

    Left out are the name (and with it the shards' file names), the build, and the fingerprint itself.
    """
    kept = {key: value for key, value in content.items() if key not in {"name", "fingerprint", "build"}}
    kept["splits"] = {
        split: {**entry, "shards": [{k: v for k, v in s.items() if k != "file"} for s in entry["shards"]]}
        for split, entry in content["splits"].items()
    }
    return sha256_bytes(canonical_json(kept))


def make_manifest(**content: Any) -> Manifest:
    """Build a manifest from everything but its fingerprint."""
    draft = Manifest(fingerprint="", **content)
    return draft.model_copy(update={"fingerprint": fingerprint(draft.model_dump(mode="json"))})


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `dataset.json`, the commit marker of a dataset, atomically."""
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def read_manifest(folder: Path) -> Manifest:
    """Read and check `dataset.json`.

    Raises `DatasetError` where there is no dataset, the format is newer than this reader, or the content was
    changed by hand.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DatasetError(_missing(folder))
    return parse_manifest(path.read_bytes(), path)


def parse_manifest(document: bytes, path: Path | str) -> Manifest:
    """Check the bytes of a `dataset.json` that lies at `path`. Raises `DatasetError` as `read_manifest` does."""
    try:
        content = parse_json(document, path)
    except CascadenceError as error:
        raise DatasetError(str(error)) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT_NAME:
        raise DatasetError(f"{path}: this is no manifest of {FORMAT_NAME}")
    version = str(content.get("schema_version", ""))
    major, known = version.split(".")[0], SCHEMA_VERSION.split(".")[0]
    if major != known:
        older = major.isdecimal() and int(major) < int(known)
        mend = "encode the dataset again" if older else "update cascadence"
        raise DatasetError(f"{path}: written in format {version}, this reader knows {SCHEMA_VERSION}; {mend}")
    try:
        manifest = Manifest.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = printable(".".join(map(str, first["loc"])))
        raise DatasetError(f"{path}: {where}: {first['msg']}; restore the file from a copy") from None
    try:
        own = fingerprint(content)
    except (ValueError, RecursionError) as error:  # NaN, infinity, nesting past Python's limit
        raise DatasetError(f"{path}: {error}; restore the file from a copy") from None
    if manifest.fingerprint != own:
        raise DatasetError(f"{path}: the content does not match its fingerprint; restore the file from a copy")
    if wrong := _wrong_with(manifest):
        raise DatasetError(f"{path}: {printable(wrong)}; restore the file from a copy")
    return manifest


def index_file(split: str) -> str:
    """Name the index of a split, relative to the dataset."""
    return f"index/{split}.npy"


def receipt_file(shard: str) -> str:
    """Name the receipt of a shard; both are relative to the dataset."""
    return f"receipts/{shard.rpartition('/')[2]}.json"


def write_receipt(folder: Path, receipt: Receipt) -> None:
    """Write a shard's receipt atomically; one that says the same already stays as it is."""
    path, content = folder / receipt_file(receipt.shard), canonical_json(receipt.model_dump())
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)


def _wrong_with(manifest: Manifest) -> str | None:
    """Say what makes no sense though its type is right; file names must lie inside the dataset."""
    if sorted(field.name for field in manifest.fields) != sorted(SIDES):
        return f"its fields are not {' and '.join(SIDES)}"
    codec = manifest.codec
    if min(codec.sample_rate, codec.hop, codec.dim, *(n for field in manifest.fields for n in field.shape)) < 1:
        return "the codec or the fields have no positive size"
    for split, entry in manifest.splits.items():
        if not _SPLIT_NAME.fullmatch(split):
            return f"{split!r} is no name of a split"
        for shard in entry.shards:
            if not _FILE_NAME.fullmatch(shard.file) or shard.samples < 1 or shard.bytes < 1:
                return f"{shard.file!r} is no shard inside the dataset"
        if entry.samples != sum(shard.samples for shard in entry.shards):
            return f"the shards of {split} do not hold its {entry.samples} samples"
    return None


def _missing(folder: Path) -> str:
    if partial_folder(folder).is_dir():
        return f"{folder}: its encoding was not finished; run the same `python -m pipeline encode` again"
    if not folder.exists():
        return f"{folder}: there is no such dataset; make one with `python -m pipeline encode`"
    return f"{folder}: not a dataset, it has no {MANIFEST}; name the folder that `python -m pipeline encode` made"


def partial_folder(folder: Path) -> Path:
    """Where a dataset is built before it takes its name."""
    return folder.with_name(folder.name + ".partial")


def dataset_card(manifest: Manifest) -> str:
    """Describe a dataset for people, with the front matter that dataset hubs read."""
    codec = manifest.codec
    seconds = manifest.window_samples / codec.sample_rate
    rows = [
        f"| {split} | {entry.samples} | {entry.groups} | {entry.samples * seconds / 3600:.3f} | {len(entry.shards)} |"
        for split, entry in sorted(manifest.splits.items())
    ]
    fields = [f"| `{field.name}` | {field.role} | {field.dtype} | {list(field.shape)} |" for field in manifest.fields]
    members = ", ".join(f"`<key>.{suffix}`" for suffix in layout(manifest.audio))
    kind = "Codes of the quantized latents" if codec.stage == "quantized" else "Latents"
    return "\n".join(
        [
            "---",
            f"pretty_name: {manifest.name}",
            "tags: [audio, latents, webdataset]",
            "---",
            f"# {manifest.name}",
            "",
            f"{kind} of pairs of {seconds:g} s of audio: one side carries the rhythm, the other the harmony.",
            f"Codec: {codec.name}, {codec.sample_rate} Hz, {codec.frame_rate:g} frames a second.",
            f"Fingerprint: `{manifest.fingerprint}`",
            "",
            "| split | pairs | tracks | hours | shards |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "| field | role | type | shape |",
            "|---|---|---|---|",
            *fields,
            "",
            f"Each shard is a plain tar of {members}.",
            "",
        ]
    )

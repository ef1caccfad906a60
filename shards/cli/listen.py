"""The verbs that take samples out: `export`, `listen`, `plot`. torch is imported only to decode audio."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shards import console, export
from shards.cli.arguments import CodecWeights, DatasetAddress, SampleName, SampleNames
from shards.console import Json
from shards.dataset import Dataset, open_dataset
from shards.errors import MisuseError
from shards.files import write_bytes
from shards.locate import Location

if TYPE_CHECKING:
    from shards.codec import Codec

_PICTURES: dict[str, Literal["png", "svg"]] = {".png": "png", ".svg": "svg"}


def export_samples(
    dataset: DatasetAddress,
    samples: SampleNames,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the files go.")],
    to: Annotated[str, typer.Option(metavar="FORMATS", help="Some of npy, wav, flac, json, with commas.")] = "npy,json",
    codec_weights: CodecWeights = None,
    json: Json = False,
) -> None:
    """Take samples out as files: arrays, records, and audio decoded through the codec."""
    formats = parse_formats(to)
    _check_folder(out)
    opened = open_dataset(dataset)
    places = {place.key: place for place in map(opened.locate, samples)}
    needs_codec = any(kind in formats for kind in export.AUDIO)
    codec = _load_codec(opened, codec_weights) if needs_codec else None
    files: dict[str, list[str]] = {}
    with console.progress("samples") as bar:
        for place in bar.track(list(places.values()), description="exporting"):
            written = export.export_sample(opened.read(place), formats, out, codec)
            files[place.key] = [str(path) for path in written]
    if json:
        console.print_json({"out": str(out), "samples": files})
        return
    for path in (path for own in files.values() for path in own):
        console.out.print(console.escape(path), soft_wrap=True)


def listen(
    dataset: DatasetAddress,
    sample: SampleName,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the two files go.")] = Path(),
    codec_weights: CodecWeights = None,
    json: Json = False,
) -> None:
    """Decode both sides of a sample into WAV files for a player, with their levels."""
    from shards.audio import write_wav

    _check_folder(out)
    opened = open_dataset(dataset)
    place = opened.locate(sample)
    decoded = export.decode(_load_codec(opened, codec_weights), opened.read(place))
    sides: dict[str, dict[str, Any]] = {}
    for side, audio in decoded.items():
        path = out / f"{place.key}.{side}.wav"
        write_wav(path, audio.fitted, audio.sample_rate)
        sides[side] = {
            "file": str(path),
            "seconds": len(audio.samples) / audio.sample_rate,
            "rms_db": _decibels(audio.rms),
            "peak_db": _decibels(audio.peak),
            "gain_db": _decibels(audio.gain),
        }
    if json:
        console.print_json({"key": place.key, "split": place.split, "sides": sides})
        return
    _print_sides(place, sides)


def plot(
    dataset: DatasetAddress,
    sample: SampleName,
    out: Annotated[Path, typer.Option(metavar="FILE", help="A .png or .svg file.")],
    json: Json = False,
) -> None:
    """Draw the latents and the envelopes of both sides of a sample."""
    from shards.plots import plot_sample

    kind = _PICTURES.get(out.suffix.lower())
    if kind is None:
        raise MisuseError(f"{out}: not a picture's name; end it in .png or .svg")
    if out.is_dir():
        raise MisuseError(f"{out}: is a folder; name a file")
    opened = open_dataset(dataset)
    place = opened.locate(sample)
    write_bytes(out, plot_sample(opened.read(place), opened.codec, kind))
    if json:
        console.print_json({"key": place.key, "split": place.split, "file": str(out)})
        return
    console.out.print(console.escape(str(out)), soft_wrap=True)


def parse_formats(text: str) -> tuple[export.Format, ...]:
    """Read a list of formats such as `npy,wav`. Raises `MisuseError` for one that there is not."""
    asked = [name.strip() for name in text.split(",")]
    for name in asked:
        if name not in export.FORMATS:
            raise MisuseError(f"--to {text}: there is no format {name!r}; choose of: {', '.join(export.FORMATS)}")
    return tuple(kind for kind in export.FORMATS if kind in asked)


def _load_codec(opened: Dataset, weights: Path | None) -> Codec:
    # Here and not above: arrays and records go out without torch.
    from shards.codec import load_matching_codec

    return load_matching_codec(opened.codec, weights, opened.address)


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise MisuseError(f"{out}: is a file; name a folder")


def _decibels(value: float) -> float | None:
    """Level in dB under full scale; None for silence, which JSON can say."""
    return round(20 * math.log10(value), 2) if value > 0 else None


def _print_sides(place: Location, sides: dict[str, dict[str, Any]]) -> None:
    def show(level: float | None) -> str:
        return "silent" if level is None else f"{level:.1f} dB"

    console.facts(place.key, [("split", place.split), ("shard", f"{place.shard.file}#{place.position}")])
    rows = [
        (side, f"{about['seconds']:.2f}", show(about["rms_db"]), show(about["peak_db"]), about["file"])
        for side, about in sides.items()
    ]
    console.table(("side", "seconds", "level", "peak", "file"), rows)
    for side, about in sides.items():
        if about["gain_db"]:
            text = f"{side} goes beyond full scale; its file is {-about['gain_db']:.1f} dB quieter and does not clip"
            console.err.print(f"[yellow]note:[/] {text}", soft_wrap=True)

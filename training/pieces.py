"""Pieces on the disk: a folder each, with sound, pictures, numbers, and what the agent decided; written and read."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shards.audio import Samples, encode_flac, read, write_wav
from shards.errors import CascadenceError, MisuseError
from shards.files import atomic_directory, is_complete, read_json, write_bytes, write_json
from training.generate import Piece
from training.plots import plot_components, plot_masks, plot_spectrograms, plot_waveforms

Format = Literal["wav", "flac"]
Recipe = Mapping[str, Any]
"""All that a piece depends on, as JSON: two pieces of one recipe are the same."""

TRACKS = ("input", "target", "output")
ABOUT, METRICS = "piece.json", "metrics.json"
MASKS, COMPONENTS = "masks.npz", "components.npz"
_UNREADABLE = (CascadenceError, OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile)


@dataclass(frozen=True)
class SavedPiece:
    """A piece as it lies on the disk, and the rate of its sound in Hz."""

    piece: Piece
    sample_rate: int


def write_piece(folder: Path, piece: Piece, sample_rate: int, recipe: Recipe, sound: Format = "wav") -> None:
    """Write a piece as one complete directory: sources and output, numbers, and pictures of all it holds."""
    with atomic_directory(folder) as inside:
        fill_folder(inside, piece, sample_rate, TRACKS, sound)
        write_json(inside / ABOUT, {"name": piece.name, "labels": dict(piece.labels), "recipe": dict(recipe)})


def fill_folder(folder: Path, piece: Piece, sample_rate: int, tracks: Sequence[str], sound: Format = "wav") -> None:
    """Write some of a piece's tracks (24 bits), its numbers, decisions and pictures into a folder that exists."""
    for name in tracks:
        write_sound(folder / f"{name}.{sound}", piece.audio[name], sample_rate)
    seconds = len(piece.audio["output"]) / sample_rate
    plot_waveforms(folder / "waveforms.png", piece.audio, sample_rate)
    plot_spectrograms(folder / "spectrograms.png", piece.audio, sample_rate)
    if piece.masks:
        plot_masks(folder / "masks.png", piece.masks, seconds)
        _write_arrays(folder / MASKS, piece.masks)
    if piece.components:
        plot_components(folder / "components.png", piece.components, seconds)
        _write_arrays(folder / COMPONENTS, piece.components)
    write_json(folder / METRICS, {"name": piece.name, **piece.metrics})


def write_sound(path: Path, samples: Samples, sample_rate: int) -> None:
    """Write mono samples [n] within [-1, 1], in 24 bits, as WAV or FLAC by the path's suffix."""
    if path.suffix == ".flac":
        write_bytes(path, encode_flac(samples, sample_rate, 24))
    else:
        write_wav(path, samples, sample_rate, "PCM_24")


def read_piece(folder: Path, sources: Path | None = None) -> SavedPiece:
    """Read a piece back; `sources` is where its sources lie, if not beside the output.

    Raises `CascadenceError`, naming the folder, where something is missing or damaged.
    """
    beside = sources or folder
    try:
        about: Any = read_json(beside / ABOUT) if (beside / ABOUT).is_file() else {"labels": {}}
        metrics: Any = read_json(folder / METRICS)
        heard = {name: read(_sound_file(folder if name == "output" else beside, name)) for name in TRACKS}
        audio = {name: recording.channels[:, 0] for name, recording in heard.items()}
        masks, components = (_read_arrays(folder / name) for name in (MASKS, COMPONENTS))
        name, labels = str(metrics.pop("name")), {side: str(label) for side, label in about["labels"].items()}
    except _UNREADABLE as error:
        what = " ".join(str(error).split())
        raise CascadenceError(f"{folder}: no whole piece ({what}); make it again with --overwrite") from None
    return SavedPiece(Piece(name, audio, metrics, masks, components, labels), heard["output"].source.sample_rate)


def finished_metrics(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Give the metrics of a piece that an earlier call made by the same recipe; None where there is no piece.

    Raises `MisuseError` where a folder of another recipe is in the way.
    """
    if not folder.exists():
        return None
    about: Any = read_json(folder / ABOUT) if is_complete(folder) and (folder / ABOUT).is_file() else {}
    if not isinstance(about, dict) or about.get("recipe") != recipe:
        raise MisuseError(
            f"{folder}: is of another checkpoint, source or setting; give another --out, or --overwrite to replace it"
        )
    metrics: Any = read_json(folder / METRICS)
    return dict(metrics)


def _sound_file(folder: Path, name: str) -> Path:
    found = [path for path in (folder / f"{name}.wav", folder / f"{name}.flac") if path.is_file()]
    return found[0] if found else folder / f"{name}.wav"


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    buffer = io.BytesIO()
    halves: dict[str, Any] = {name: values.astype(np.float16) for name, values in arrays.items()}
    np.savez_compressed(buffer, **halves)
    write_bytes(path, buffer.getvalue())


def _read_arrays(path: Path) -> dict[str, NDArray[np.float32]]:
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name].astype(np.float32) for name in stored.files}

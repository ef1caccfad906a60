"""A piece as the page shows it: its sound, its pictures and its numbers with their verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np
from markupsafe import Markup

from shards.audio import Samples, encode_flac, encode_vorbis
from shards.dataset import describe_codec
from training.checkpoint import CheckpointRecord
from training.criteria import CRITERIA, Verdict
from training.generate import Piece
from training.page import pictures
from training.pieces import TRACKS, SavedPiece

FLAC_BYTES = 800_000
"""A piece whose tracks are larger than this is embedded as Ogg Vorbis, a quarter as large."""
LONGEST_SECONDS = 600
"""Of a piece on a page; of a longer one the beginning is shown."""
ROLES = {"input": "rhythm", "target": "harmony", "output": "new music"}


@dataclass(frozen=True)
class TrackView:
    """One of a piece's three sounds: what it is called, an encoded file, and its pictures."""

    name: str
    role: str
    label: str
    sound: bytes
    wave: Markup
    spectrogram: bytes


@dataclass(frozen=True)
class Decision:
    """A strip of what the agent decided over time; `legend` explains it: classes of the style sheet and text."""

    title: str
    legend: tuple[tuple[str, str], ...]
    svg: Markup | None = None
    png: bytes | None = None
    alt: str = ""


@dataclass(frozen=True)
class Row:
    """A number for people: `verdict` None where any value will do."""

    title: str
    value: str
    wanted: str | None
    verdict: Verdict | None


@dataclass(frozen=True)
class PieceView:
    """A piece on the page; `kind` is the media type of its sounds, `seconds` their length, of `whole_seconds`."""

    title: str
    name: str
    place: str
    kind: str
    seconds: float
    whole_seconds: float
    tracks: tuple[TrackView, ...]
    decisions: tuple[Decision, ...]
    rows: tuple[Row, ...]

    @property
    def judged(self) -> tuple[int, int]:
        """How many of the numbers that have a range lie within it, and how many have one."""
        verdicts = [row.verdict for row in self.rows if row.verdict is not None]
        return verdicts.count("success"), len(verdicts)


def view_piece(saved: SavedPiece, place: str) -> PieceView:
    """Make a piece ready for the page; `place` says where its files are."""
    whole = len(saved.piece.audio["output"]) / saved.sample_rate
    piece = _beginning(saved.piece, saved.sample_rate, whole)
    kind, sounds = _encode(piece.audio, saved.sample_rate)
    # The same for all three, so that their levels can be compared.
    loudest = max(0.05, *(float(np.abs(samples).max()) for samples in piece.audio.values()))
    return PieceView(
        title=_title(piece),
        name=piece.name,
        place=place,
        kind=kind,
        seconds=len(piece.audio["output"]) / saved.sample_rate,
        whole_seconds=whole,
        tracks=tuple(_view_track(piece, name, sounds[name], loudest, saved.sample_rate) for name in TRACKS),
        decisions=(*_masks(piece), *_components(piece)),
        rows=metric_rows(piece.metrics),
    )


def describe_windows(record: CheckpointRecord) -> str:
    """Say which codec a checkpoint knows, and windows of which length."""
    return f"{describe_codec(record.codec)}, windows of {record.frames / record.codec.frame_rate:g} s"


def metric_rows(metrics: Mapping[str, Any]) -> tuple[Row, ...]:
    """Put those metrics into words that have a criterion, in the order of the criteria."""
    return tuple(
        Row(criterion.title, criterion.text(metrics[name]), criterion.range_text, criterion.judge(metrics[name]))
        for name, criterion in CRITERIA.items()
        if criterion.of_pair and metrics.get(name) is not None
    )


def _beginning(piece: Piece, sample_rate: int, seconds: float) -> Piece:
    if seconds <= LONGEST_SECONDS:
        return piece
    share = LONGEST_SECONDS / seconds
    return replace(
        piece,
        audio={name: samples[: LONGEST_SECONDS * sample_rate] for name, samples in piece.audio.items()},
        masks={name: mask[:, : round(share * mask.shape[1])] for name, mask in piece.masks.items()},
        components={name: weights[: round(share * len(weights))] for name, weights in piece.components.items()},
    )


def _encode(audio: Mapping[str, Samples], sample_rate: int) -> tuple[str, dict[str, bytes]]:
    """Encode all tracks alike, so that they stay in step: without loss where that is small."""
    exact = {name: encode_flac(samples, sample_rate) for name, samples in audio.items()}
    if max(map(len, exact.values())) <= FLAC_BYTES:
        return "audio/flac", exact
    return "audio/ogg", {name: encode_vorbis(samples, sample_rate) for name, samples in audio.items()}


def _title(piece: Piece) -> str:
    """Name a piece after its sources, in one word where they share one."""
    stems = [PurePath(label).stem for side in ("input", "target") if (label := piece.labels.get(side))]
    if len(stems) < 2:
        return piece.name
    input_stem, target_stem = (
        stem.removesuffix(side).rstrip("_- ") for stem, side in zip(stems, ("input", "target"), strict=True)
    )
    return input_stem if input_stem and input_stem == target_stem else " with ".join(stems)


def _view_track(piece: Piece, name: str, sound: bytes, loudest: float, sample_rate: int) -> TrackView:
    samples = piece.audio[name]
    return TrackView(
        name=name,
        role=ROLES[name],
        label=str(piece.labels.get(name, "")),
        sound=sound,
        wave=pictures.wave(samples, loudest, f"Waveform of the {name}"),
        spectrogram=pictures.spectrogram(samples, sample_rate, name),
    )


def _masks(piece: Piece) -> tuple[Decision, ...]:
    if not piece.masks:
        return ()
    means = {side: float(mask.mean()) for side, mask in piece.masks.items()}
    curves = tuple((side, f"{side} {mean:.0%}") for side, mean in means.items())
    map_legend = (("input", "keeps the input"), ("target", "keeps the target"), ("neither", "both alike"))
    alt = "Which source the masks keep, low channels at the foot"
    return (
        Decision("Share kept", curves, svg=pictures.shares(piece.masks, "How much of each source its mask keeps")),
        Decision("Masks", map_legend, png=pictures.balance(piece.masks), alt=alt),
    )


def _components(piece: Piece) -> tuple[Decision, ...]:
    if not piece.components:
        return ()
    legend = tuple(
        (name.replace("_", " "), f"{name.replace('_', ' ')} {weights.mean():.0%}")
        for name, weights in reversed(piece.components.items())
    )
    return (Decision("Components", legend, svg=pictures.stacked(piece.components, "Weights of the six components")),)

"""Pairs of recordings drawn from a seed: drums for the rhythm, a piano for the harmony."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.synthesize.drum_patterns import DrumPattern
from pipeline.synthesize.drums import draw_pattern, record_drums
from pipeline.synthesize.piano import Piece, draw_piece, record_piano
from pipeline.synthesize.signal import SAMPLE_RATE
from shards.errors import MisuseError

LOWEST_TEMPO, HIGHEST_TEMPO = 70.0, 160.0
SHORTEST_SECONDS = 0.25
SHARED_TEMPO_RATE = 0.7
_PAIRS_PER_VALIDATION = 6


@dataclass(frozen=True)
class Pair:
    """A drum and a piano recording [n] at SAMPLE_RATE, peak at most 0.95, and what is played in them.

    `description` holds values that JSON can carry.
    """

    drums: NDArray[np.float32]
    piano: NDArray[np.float32]
    description: dict[str, object]


def synthesize_pair(seed: int, index: int, seconds: float) -> Pair:
    """Make pair `index` of the data set `seed`: both recordings [round(seconds * SAMPLE_RATE)].

    The same arguments give the same samples. Most pairs share one tempo and nothing else: what a model makes
    of a pair must then come from both of its sides. Raises `MisuseError` for a negative `seed` or `index` and
    for fewer than SHORTEST_SECONDS.
    """
    if seed < 0 or index < 0:
        raise MisuseError(f"seed {seed} and index {index} must not be negative")
    if not (math.isfinite(seconds) and seconds >= SHORTEST_SECONDS):
        raise MisuseError(f"seconds is {seconds}; a recording must last {SHORTEST_SECONDS} s or longer")
    samples = round(seconds * SAMPLE_RATE)
    # Streams of their own: a change to the one instrument leaves every recording of the other as it was.
    plan_rng, drum_rng, piano_rng = np.random.default_rng([seed, index]).spawn(3)
    pattern, drum_tempo = draw_pattern(plan_rng)
    shares_tempo = bool(plan_rng.random() < SHARED_TEMPO_RATE)
    other_tempo = round(float(plan_rng.uniform(LOWEST_TEMPO, HIGHEST_TEMPO)), 1)
    piano_tempo = drum_tempo if shares_tempo else other_tempo
    piece = draw_piece(plan_rng, piano_tempo)
    return Pair(
        drums=record_drums(drum_rng, pattern, drum_tempo, samples),
        piano=record_piano(piano_rng, piece, piano_tempo, samples),
        description={
            "seed": seed,
            "index": index,
            "seconds": samples / SAMPLE_RATE,
            "shares_tempo": shares_tempo,
        }
        | _describe(pattern, drum_tempo, piece, piano_tempo),
    )


def split_of(index: int, pairs: int) -> Literal["train", "val"]:
    """Tell the split of pair `index` of `pairs`: one in six validates, and one of two to five does.

    Raises `MisuseError` unless 0 <= index < pairs.
    """
    if not 0 <= index < pairs:
        raise MisuseError(f"index {index} lies outside 0 to {pairs - 1}")
    spacing = min(_PAIRS_PER_VALIDATION, max(pairs, 2))
    return "val" if index % spacing == spacing - 1 else "train"


def _describe(pattern: DrumPattern, drum_tempo: float, piece: Piece, piano_tempo: float) -> dict[str, object]:
    """Name what is played, tempi in BPM."""
    beats = piece.steps_per_chord / 4
    return {
        "drum_pattern": pattern.name,
        "drum_tempo": drum_tempo,
        "piano_style": piece.style.name,
        "piano_tempo": piano_tempo,
        "key": piece.key,
        "mode": piece.mode,
        "progression": piece.progression,
        "chords": [chord.symbol for chord in piece.chords],
        "chord_pitch_classes": [list(chord.pitch_classes) for chord in piece.chords],
        "chord_seconds": beats * 60 / piano_tempo,
    }

"""A drummer: plays a pattern with fills, ghost notes and a human hand, and is recorded in a room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pipeline.synthesize.drum_kit import VOICE_LEVELS, build_kit
from pipeline.synthesize.drum_patterns import (
    BEATS_PER_BAR,
    DRUM_PATTERNS,
    FILLS,
    STROKES,
    Bar,
    DrumPattern,
)
from pipeline.synthesize.signal import SAMPLE_RATE, Audio, add_sound, at_level, in_room

_HATS = ("closed_hat", "open_hat", "pedal_hat")
_TIMING_SPREAD = 0.004
_VELOCITY_SPREAD = 0.08


@dataclass(frozen=True)
class Stroke:
    """One stroke on one voice: `start` in seconds, `velocity` in (0, 1], `stop` where a hand chokes it."""

    start: float
    voice: str
    velocity: float
    stop: float | None = None


def draw_pattern(rng: np.random.Generator) -> tuple[DrumPattern, float]:
    """Draw a pattern and a tempo in BPM that suits it."""
    pattern = DRUM_PATTERNS[rng.integers(len(DRUM_PATTERNS))]
    return pattern, round(float(rng.uniform(*pattern.tempo)), 1)


def record_drums(rng: np.random.Generator, pattern: DrumPattern, tempo: float, samples: int) -> Audio:
    """Play `pattern` at `tempo` BPM and record it: audio [samples], peak below 0.95, RMS about 0.1."""
    strokes = perform(rng, pattern, tempo, samples / SAMPLE_RATE)
    kit = build_kit(rng, {stroke.voice for stroke in strokes})
    room_decay, room_level = rng.uniform(0.2, 0.45), rng.uniform(0.12, 0.3)
    level = rng.uniform(0.085, 0.13)
    balance = {voice: gain * rng.uniform(0.8, 1.2) for voice, gain in VOICE_LEVELS.items()}
    track = np.zeros(samples, np.float32)
    for stroke in strokes:
        takes = kit[stroke.voice]
        take = takes[rng.integers(len(takes))]
        gain = balance[stroke.voice] * stroke.velocity**1.5
        add_sound(track, take, stroke.start, gain, stroke.stop, release=0.012)
    return at_level(in_room(rng, track, room_decay, room_level), level)


def perform(rng: np.random.Generator, pattern: DrumPattern, tempo: float, seconds: float) -> list[Stroke]:
    """Play `pattern` for `seconds` at `tempo` BPM: strokes in order of time, hats already choked."""
    swing = rng.uniform(*pattern.swing)
    lags = {voice: rng.uniform(-0.003, 0.007) for voice in VOICE_LEVELS}
    phrase = int(rng.choice((2, 4, 4, 8)))
    step = 60 / tempo * BEATS_PER_BAR / pattern.steps
    strokes = []
    for number in range(int(seconds / (step * pattern.steps)) + 1):
        bar = _dress(rng, pattern, number, phrase)
        for position, voice, velocity in _strokes_of(bar):
            late = swing if _is_off_beat(position, pattern.steps) else 0.0
            start = (number * pattern.steps + position + late) * step
            start += lags[voice] + rng.normal(0, _TIMING_SPREAD)
            velocity *= 1 + rng.normal(0, _VELOCITY_SPREAD)
            strokes.append(Stroke(max(0.0, start), voice, float(np.clip(velocity, 0.1, 1.0))))
    return _choke(sorted(strokes, key=lambda stroke: stroke.start))


def _dress(rng: np.random.Generator, pattern: DrumPattern, number: int, phrase: int) -> Bar:
    """Give bar `number` as it is played: with ghosts, a fill to end a phrase, a crash to start one."""
    bar = dict(pattern.bars[number % len(pattern.bars)])
    if pattern.ghosts:
        taken = {position for voice in ("snare", "kick") for position in _hits(bar.get(voice, ""))}
        chances = rng.random(pattern.steps) < pattern.ghosts
        snare = bar.get("snare", "." * pattern.steps)
        bar["snare"] = "".join(
            "g" if chance and position not in taken else stroke
            for position, (stroke, chance) in enumerate(zip(snare, chances, strict=True))
        )
    if number % phrase == phrase - 1:
        fills = FILLS[pattern.steps]
        fill = fills[rng.integers(len(fills))]
        half = pattern.steps // 2
        kept = {voice: grid[:half] + (grid[half:] if voice == "kick" else "." * half) for voice, grid in bar.items()}
        bar = kept | {voice: kept.get(voice, "." * half)[:half] + grid for voice, grid in fill.items()}
    if number and number % phrase == 0 and rng.random() < 0.8:
        bar["crash"] = "x".ljust(pattern.steps, ".")
    return bar


def _hits(grid: str) -> list[int]:
    """List the steps of a grid that hold a stroke."""
    return [position for position, stroke in enumerate(grid) if stroke != "."]


def _strokes_of(bar: Bar) -> Iterator[tuple[int, str, float]]:
    """Yield the bar's strokes as (step, voice, velocity)."""
    for voice, grid in bar.items():
        for position in _hits(grid):
            yield position, voice, STROKES[grid[position]]


def _is_off_beat(position: int, steps: int) -> bool:
    """Tell whether swing moves this step: every second sixteenth, or the last triplet of each beat."""
    return position % 2 == 1 if steps == 16 else position % 3 == 2


def _choke(strokes: list[Stroke]) -> list[Stroke]:
    """End each stroke on the hats where the next one falls: there is only one pair of them."""
    choked = list(strokes)
    following: float | None = None
    for place in range(len(choked) - 1, -1, -1):
        stroke = choked[place]
        if stroke.voice in _HATS:
            choked[place] = replace(stroke, stop=following)
            following = stroke.start
    return choked

"""A pianist: plays a chord progression in one of several styles, and is recorded in a room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pipeline.synthesize.harmony import (
    NOTE_NAMES,
    PROGRESSIONS,
    SCALES,
    Chord,
    bass_of,
    chord_of,
    voicing_of,
)
from pipeline.synthesize.piano_styles import PIANO_STYLES, STEPS_PER_BAR, PianoStyle
from pipeline.synthesize.piano_tone import draw_piano, strike
from pipeline.synthesize.signal import SAMPLE_RATE, Audio, add_sound, at_level, in_room

_STEPS_PER_BEAT = 4
_TIMING_SPREAD = 0.006
_VELOCITY_LAYERS = 6
_LAYER_VELOCITIES = {"bass": 0.62, "chords": 0.55, "melody": 0.76}
_HIGHEST_MELODY = 93


@dataclass(frozen=True)
class Piece:
    """What is played: a key (`tonic` 0 = C), a progression in it, a style, the steps a chord lasts."""

    tonic: int
    mode: str
    progression: str
    chords: tuple[Chord, ...]
    style: PianoStyle
    steps_per_chord: int

    @property
    def key(self) -> str:
        """The key's name, such as `Eb minor`."""
        return f"{NOTE_NAMES[self.tonic]} {self.mode}"

    def chord(self, number: int) -> Chord:
        """Chord `number` from the start; the progression repeats."""
        return self.chords[number % len(self.chords)]


@dataclass(frozen=True)
class Note:
    """One key held from `start` to `stop` seconds; `pitch` is a MIDI note, `velocity` lies in (0, 1]."""

    start: float
    stop: float
    pitch: int
    velocity: float


def draw_piece(rng: np.random.Generator, tempo: float) -> Piece:
    """Draw a piece to play at `tempo` BPM; slow ones may change the chord twice a bar."""
    tonic, mode = int(rng.integers(12)), str(rng.choice(tuple(SCALES)))
    progression = str(rng.choice(tuple(PROGRESSIONS[mode])))
    chords = tuple(chord_of(tonic, numeral) for numeral in PROGRESSIONS[mode][progression].split())
    styles = [style for style in PIANO_STYLES if tempo <= style.fastest]
    style = styles[rng.integers(len(styles))]
    halved = tempo < 100 and rng.random() < 0.5
    return Piece(tonic, mode, progression, chords, style, STEPS_PER_BAR // 2 if halved else STEPS_PER_BAR)


def record_piano(rng: np.random.Generator, piece: Piece, tempo: float, samples: int) -> Audio:
    """Play `piece` at `tempo` BPM and record it: audio [samples], peak below 0.95, RMS about 0.1."""
    piano = draw_piano(rng)
    room_decay, room_level = rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.4)
    level = rng.uniform(0.085, 0.13)
    notes = perform(rng, piece, tempo, samples / SAMPLE_RATE)
    release = rng.uniform(0.05, 0.09)
    longest = max(note.stop - note.start for note in notes) + 6 * release
    tones: dict[tuple[int, int], Audio] = {}
    track = np.zeros(samples, np.float32)
    for note in notes:
        layer = round(note.velocity * _VELOCITY_LAYERS)
        tone = tones.get((note.pitch, layer))
        if tone is None:
            tone = strike(rng, piano, note.pitch, layer / _VELOCITY_LAYERS, longest)
            tones[note.pitch, layer] = tone
        add_sound(track, tone, note.start, note.velocity**1.6, note.stop, release)
    return at_level(in_room(rng, track, room_decay, room_level), level)


def perform(rng: np.random.Generator, piece: Piece, tempo: float, seconds: float) -> list[Note]:
    """Play `piece` for `seconds` at `tempo` BPM: notes in order of time, a repeated key released first."""
    step = 60 / tempo / _STEPS_PER_BEAT
    swing = rng.uniform(*piece.style.swing)
    last = int(seconds / step) + 1
    notes = []
    for start, end, keys in _moments(rng, piece, last):
        swung = start + 2 * swing if start % _STEPS_PER_BEAT == 2 else start + swing * (start % 2)
        swell = 1 + 0.12 * np.sin(2 * np.pi * start / (8 * STEPS_PER_BAR))
        accent = 1.0 if start % _STEPS_PER_BEAT == 0 else 0.88
        begin = swung * step + rng.normal(0, _TIMING_SPREAD)
        spread = rng.uniform(0.0, 0.012)
        for place, (pitch, velocity) in enumerate(keys):
            struck = max(0.0, begin + place * spread)
            hard = float(np.clip(velocity * swell * accent * (1 + rng.normal(0, 0.07)), 0.15, 1.0))
            notes.append(Note(struck, max(struck + 0.08, end * step), pitch, hard))
    return _release_repeated(sorted(notes, key=lambda note: note.start))


def _moments(rng: np.random.Generator, piece: Piece, last: int) -> Iterator[tuple[int, float, list[tuple[int, float]]]]:
    """Yield what each layer strikes before step `last`: start step, end step, (pitch, velocity)."""
    voiced = _voiced(piece, last)
    melody = int(rng.integers(72, 82))
    shares = {layer: velocity * rng.uniform(0.9, 1.1) for layer, velocity in _LAYER_VELOCITIES.items()}
    for step in range(last):
        chord, voicing, bass = voiced[step // piece.steps_per_chord]
        for layer, grid in piece.style.bar(step // STEPS_PER_BAR).items():
            place = step % STEPS_PER_BAR
            symbol = _first_of_chord(layer, grid, step, piece)
            if symbol == "." or (layer == "melody" and rng.random() < 0.12):
                continue
            if layer == "melody":
                melody = _sing(rng, piece, chord, melody, place)
                keys = [melody]
            else:
                keys = _bass_keys(symbol, bass, chord) if layer == "bass" else _chord_keys(symbol, voicing)
            yield step, _end_of(piece, grid, step), [(key, shares[layer]) for key in keys]


def _voiced(piece: Piece, last: int) -> list[tuple[Chord, tuple[int, ...], int]]:
    """Place every chord before step `last` for both hands, each led from the one before it."""
    voicing: tuple[int, ...] | None = None
    bass: int | None = None
    voiced = []
    for number in range(-(-last // piece.steps_per_chord)):
        chord = piece.chord(number)
        voicing, bass = voicing_of(chord, voicing), bass_of(chord, bass)
        voiced.append((chord, voicing, bass))
    return voiced


def _first_of_chord(layer: str, grid: str, step: int, piece: Piece) -> str:
    """Symbol that a layer plays at `step`; a chord that enters where the bass rests still gets its root."""
    symbol = grid[step % STEPS_PER_BAR]
    if layer == "bass" and step % piece.steps_per_chord == 0:
        return symbol if symbol in "1B" else "1"
    return symbol


def _end_of(piece: Piece, grid: str, step: int) -> float:
    """Step at which a key struck at `step` is let go: the chord's end under the pedal, else a share of the gap."""
    chord_end = (step // piece.steps_per_chord + 1) * piece.steps_per_chord
    if piece.style.pedal:
        return chord_end
    place = step % STEPS_PER_BAR
    gap = next((gap for gap in range(1, STEPS_PER_BAR) if grid[(place + gap) % STEPS_PER_BAR] != "."), STEPS_PER_BAR)
    return min(chord_end, step + piece.style.gate * gap)


def _bass_keys(symbol: str, root: int, chord: Chord) -> list[int]:
    """MIDI notes of a bass symbol over `root`."""
    above = {
        "1": [0],
        "B": [0, 12],
        "3": [chord.third],
        "5": [chord.fifth],
        "8": [12],
        "t": [12 + chord.third],
    }
    return [root + interval for interval in above[symbol]]


def _chord_keys(symbol: str, voicing: tuple[int, ...]) -> list[int]:
    """MIDI notes of a chord symbol: the whole voicing, or one voice of it with the lowest doubled on top."""
    if symbol == "C":
        return list(voicing)
    ladder = (*voicing, voicing[0] + 12)
    return [ladder[min(int(symbol), len(ladder)) - 1]]


def _sing(rng: np.random.Generator, piece: Piece, chord: Chord, last: int, place: int) -> int:
    """Next note of the melody: a chord tone near the last, or between beats at times a step of the scale."""
    passing = place % _STEPS_PER_BEAT != 0 and rng.random() < 0.3
    scale = [(piece.tonic + degree) % 12 for degree in SCALES[piece.mode]]
    allowed = scale if passing else chord.pitch_classes
    near = [pitch for pitch in range(last - 7, last + 8) if pitch % 12 in allowed and 70 <= pitch <= _HIGHEST_MELODY]
    distances = np.abs(np.array(near) - last)
    weights = np.where(distances == 0, 0.25, np.exp(-distances / 3.0))
    return int(rng.choice(near, p=weights / weights.sum()))


def _release_repeated(notes: list[Note]) -> list[Note]:
    """Let go of a key before it is struck again: one string can't sound twice."""
    released = list(notes)
    following: dict[int, float] = {}
    for place in range(len(released) - 1, -1, -1):
        note = released[place]
        released[place] = replace(note, stop=min(note.stop, following.get(note.pitch, note.stop)))
        following[note.pitch] = note.start
    return released

"""Keys, chords and voicings: what the piano is asked to play, in MIDI note numbers and pitch classes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

NOTE_NAMES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}

# Degrees count from the major scale in both modes, hence the flats in minor.
PROGRESSIONS: dict[str, dict[str, str]] = {
    "major": {
        "axis": "I V vi IV",
        "fifties": "I vi IV V7",
        "canon": "I V vi iii IV I IV V",
        "jazz_two_five_one": "ii7 V7 Imaj7 vi7",
        "turnaround": "Imaj7 vi7 ii7 V9",
        "ipanema": "Imaj7 II7 ii7 bII7",
        "royal_road": "IVmaj7 V7 iii7 vi7",
        "mixolydian": "Iadd9 bVII IVadd9 I",
        "gospel": "I I7 IV iv6 I V7sus4",
        "twelve_bar_blues": "I7 IV7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7",
    },
    "minor": {
        "andalusian": "i bVII bVI V7",
        "epic": "i bVI bIII bVII",
        "minor_two_five_one": "ii7b5 V7b9 i7 bVImaj7",
        "autumn": "iv7 bVII7 bIIImaj7 bVImaj7 ii7b5 V7 i7 i7",
        "dorian_vamp": "i7 IV7",
        "plagal_minor": "i iv i v7",
        "lament": "i v bVI iv",
        "line_cliche": "imaj7 i7 i6 iv6",
    },
}
_INTERVALS = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "m7": (0, 3, 7, 10),
    "maj7": (0, 4, 7, 11),
    "mmaj7": (0, 3, 7, 11),
    "m6": (0, 3, 7, 9),
    "m7b5": (0, 3, 6, 10),
    "9": (0, 2, 4, 7, 10),
    "7b9": (0, 1, 4, 7, 10),
    "7sus4": (0, 5, 7, 10),
    "add9": (0, 2, 4, 7),
}
_DEGREES = dict(zip(("I", "II", "III", "IV", "V", "VI", "VII"), SCALES["major"], strict=True))
_NUMERAL = re.compile(r"(b?)([IViv]+)(.*)")
_LOWEST_VOICE, _HIGHEST_VOICE, _VOICING_CENTRE = 54, 79, 65
_LOWEST_BASS, _HIGHEST_BASS = 33, 48


@dataclass(frozen=True)
class Chord:
    """A chord: its root as a pitch class (0 = C) and its tones as semitones above the root."""

    root: int
    quality: str
    intervals: tuple[int, ...]

    @property
    def symbol(self) -> str:
        """The chord's name, such as `Dm7`."""
        return NOTE_NAMES[self.root] + self.quality

    @property
    def pitch_classes(self) -> tuple[int, ...]:
        """Pitch classes of the chord's tones, the root first."""
        return tuple((self.root + interval) % 12 for interval in self.intervals)

    @property
    def third(self) -> int:
        """Semitones from the root to the third, or to the fourth that is suspended in its place."""
        return next(interval for interval in self.intervals if interval >= 3)

    @property
    def fifth(self) -> int:
        """Semitones from the root to the fifth, perfect or diminished."""
        return next(interval for interval in self.intervals if interval in (6, 7))


def chord_of(tonic: int, numeral: str) -> Chord:
    """Read a Roman numeral such as `ii7` or `bVImaj7` in the key of `tonic` (0 = C).

    Lower case is minor. Raises `ValueError` for a numeral that isn't one.
    """
    match = _NUMERAL.fullmatch(numeral)
    if match is None or match[2].upper() not in _DEGREES:
        raise ValueError(f"{numeral!r} is no Roman numeral")
    quality = ("m" if match[2].islower() else "") + match[3]
    if quality not in _INTERVALS:
        raise ValueError(f"{numeral!r} names the chord quality {quality!r}; known are {sorted(_INTERVALS)}")
    root = (tonic + _DEGREES[match[2].upper()] - len(match[1])) % 12
    return Chord(root, quality, _INTERVALS[quality])


def voicing_of(chord: Chord, previous: tuple[int, ...] | None) -> tuple[int, ...]:
    """Place the chord's tones for the right hand: MIDI notes, lowest first.

    Takes the close or drop-two position whose voices move least from `previous` (None: nearest the centre of
    the keyboard); a chord of five tones leaves its root to the left hand.
    """
    classes = chord.pitch_classes if len(chord.intervals) < 5 else chord.pitch_classes[1:]
    candidates = []
    for lowest in range(_LOWEST_VOICE, _HIGHEST_VOICE):
        if lowest % 12 in classes:
            close = tuple(sorted(lowest + (pitch_class - lowest) % 12 for pitch_class in classes))
            candidates.append(close)
            if len(close) == 4:
                candidates.append(tuple(sorted((close[0], close[1], close[2] - 12, close[3]))))
    playable = [notes for notes in candidates if notes[0] >= _LOWEST_VOICE and notes[-1] <= _HIGHEST_VOICE]
    return min(playable, key=lambda notes: _movement(notes, previous))


def bass_of(chord: Chord, previous: int | None) -> int:
    """Place the chord's root for the left hand: the MIDI note nearest to `previous` in the bass."""
    centre = 41 if previous is None else 0.7 * previous + 0.3 * 41
    roots = [note for note in range(_LOWEST_BASS, _HIGHEST_BASS + 1) if note % 12 == chord.root]
    return min(roots, key=lambda note: abs(note - centre))


def _movement(notes: tuple[int, ...], previous: tuple[int, ...] | None) -> float:
    """Semitones that the voices travel, with a pull towards the centre so that they don't drift away."""
    drift = abs(float(np.mean(notes)) - _VOICING_CENTRE)
    if previous is None:
        return drift
    distances = np.abs(np.subtract.outer(notes, previous))
    return float(distances.min(axis=0).sum() + distances.min(axis=1).sum()) + 0.4 * drift

"""The pianist's vocabulary: one bar of sixteenth notes a grid, one character a step, `.` a rest.

`bass`: a degree of the chord over its root (`1` root, `3` third, `5` fifth, `8` octave), `t` the tenth, `B` root
and octave together. `chords`: `C` the whole voicing, a digit one of its voices from the lowest. `melody`: `M` a
note.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

STEPS_PER_BAR = 16


@dataclass(frozen=True)
class PianoStyle:
    """A way of playing chords: bars of grids in turn, and how long keys are held.

    With `pedal` everything rings until the chord changes; without it a key is held for `gate` times the
    distance to the layer's next stroke. `swing` is the range of the off-beat's lag in sixteenths, `fastest`
    the tempo in BPM above which nobody plays so.
    """

    name: str
    bars: tuple[dict[str, str], ...]
    pedal: bool = True
    gate: float = 0.85
    swing: tuple[float, float] = (0.0, 0.0)
    fastest: float = math.inf

    def bar(self, number: int) -> dict[str, str]:
        """Grids of bar `number`."""
        return self.bars[number % len(self.bars)]


PIANO_STYLES = (
    PianoStyle(
        "block",
        (
            {"bass": "B.......1.......", "chords": "C.......C......."},
            {"bass": "B.......5.......", "chords": "C.......C...C..."},
        ),
    ),
    PianoStyle(
        "ballad",
        (
            {"bass": "1.5.8.t.8.5.8.5.", "chords": "C...............", "melody": "M.....M.M...M.M."},
            {"bass": "1.5.8.t.8.5.8.5.", "chords": "C.......C.......", "melody": "M...M.M.....M..."},
        ),
    ),
    PianoStyle("arpeggio", ({"bass": "B.......5.......", "chords": "1.2.3.4.3.2.3.2."},)),
    PianoStyle(
        "rolling",
        (
            {"bass": "1.......8.......", "chords": "1232432312324323"},
            {"bass": "1.......5.......", "chords": "1232432312343234"},
        ),
        fastest=112,
    ),
    PianoStyle(
        "broken",
        ({"bass": "1.......5.......", "chords": "1.3.2.3.1.3.2.3.", "melody": "M...M...M.M.M..."},),
        pedal=False,
        gate=1.0,
    ),
    PianoStyle("pop_quarters", ({"bass": "B.....1.B.......", "chords": "C...C...C...C..."},)),
    PianoStyle(
        "syncopated",
        (
            {"bass": "1.....1.5...1...", "chords": "C..C..C...C.C..."},
            {"bass": "1.....1.8...5...", "chords": "C..C..C...C..C.."},
        ),
        pedal=False,
    ),
    PianoStyle(
        "bossa",
        (
            {"bass": "1.....5.5.....1.", "chords": "C..C..C...C..C.."},
            {"bass": "1.....5.5.....1.", "chords": "..C...C..C..C..."},
        ),
        pedal=False,
        gate=0.7,
    ),
    PianoStyle(
        "stride",
        (
            {"bass": "1.......5.......", "chords": "....C.......C...", "melody": "M.M...M.M.M...M."},
            {"bass": "1.......5.......", "chords": "....C.......C...", "melody": "M.....M.M...M..."},
        ),
        pedal=False,
        gate=0.7,
        swing=(0.2, 0.32),
    ),
    PianoStyle(
        "comping",
        (
            {"bass": "1...3...5...8...", "chords": "C.....C........."},
            {"bass": "1...5...3...5...", "chords": "......C.......C."},
        ),
        pedal=False,
        gate=0.8,
        swing=(0.2, 0.32),
    ),
)

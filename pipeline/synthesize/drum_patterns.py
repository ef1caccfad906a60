"""The drummer's vocabulary: one bar of 4/4 a grid, one character a step.

`X` accent, `x` stroke, `o` soft stroke, `g` ghost note, `.` rest. Sixteen characters are sixteenth notes,
twelve are eighth-note triplets. A pattern's bars are played in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

Bar = dict[str, str]

STROKES = {"X": 1.0, "x": 0.8, "o": 0.55, "g": 0.26}
BEATS_PER_BAR = 4


@dataclass(frozen=True)
class DrumPattern:
    """A groove: the tempi (BPM) that suit it, its bars, how far off-beats lag, how often ghosts appear.

    `swing` is a range in shares of a step; `ghosts` is the chance of a ghost note on each free step.
    """

    name: str
    tempo: tuple[float, float]
    bars: tuple[Bar, ...]
    swing: tuple[float, float] = (0.0, 0.0)
    ghosts: float = 0.0

    @property
    def steps(self) -> int:
        """Steps in a bar: 16 or 12."""
        return len(next(iter(self.bars[0].values())))


_ROCK = DrumPattern(
    "rock",
    (90, 150),
    (
        {"kick": "X.......X.x.....", "snare": "....X.......X...", "closed_hat": "X.o.x.o.X.o.x.o."},
        {"kick": "X......xX.x.....", "snare": "....X.......X...", "closed_hat": "X.o.x.o.X.o.x.o."},
        {"kick": "X.......X.x.....", "snare": "....X.......X...", "closed_hat": "X.o.x.o.X.o.x.o."},
        {
            "kick": "X.x.....X.x...x.",
            "snare": "....X.......X...",
            "closed_hat": "X.o.x.o.X.o.x...",
            "open_hat": "..............x.",
        },
    ),
    ghosts=0.02,
)
_FUNK = DrumPattern(
    "funk",
    (86, 116),
    (
        {"kick": "X..x..x...X..x..", "snare": "....X..g.g..X..g", "closed_hat": "XoxoXoxoXoxoXoxo"},
        {
            "kick": "X.x....x..X..x..",
            "snare": "....X..g.g.gX...",
            "closed_hat": "XoxoXoxoXoxoXo..",
            "open_hat": "..............x.",
        },
    ),
    swing=(0.0, 0.2),
    ghosts=0.1,
)
_BOSSA = DrumPattern(
    "bossa",
    (70, 90),
    (
        {"kick": "x..ox..ox..ox..o", "rim": "x..x..x...x..x..", "shaker": "xoxoxoxoxoxoxoxo"},
        {"kick": "x..ox..ox..ox..o", "rim": "..x...x..x..x...", "shaker": "xoxoxoxoxoxoxoxo"},
    ),
)
_FOUR_ON_THE_FLOOR = DrumPattern(
    "four_on_the_floor",
    (114, 134),
    (
        {
            "kick": "X...X...X...X...",
            "clap": "....X.......X...",
            "closed_hat": "oo.ooo.ooo.ooo.o",
            "open_hat": "..x...x...x...x.",
        },
        {
            "kick": "X...X...X...X..o",
            "clap": "....X.......X...",
            "snare": ".......g.g......",
            "closed_hat": "oo.ooo.ooo.ooo.o",
            "open_hat": "..x...x...x...x.",
        },
    ),
    swing=(0.0, 0.12),
)
_HALF_TIME = DrumPattern(
    "half_time",
    (104, 160),
    (
        {"kick": "X.....x...x.....", "snare": "........X.......", "closed_hat": "x.o.x.o.x.o.x.o."},
        {"kick": "X..x......x...x.", "snare": "........X.......", "closed_hat": "x.o.x.o.x.o.xooo"},
    ),
    ghosts=0.03,
)
_BREAKBEAT = DrumPattern(
    "breakbeat",
    (128, 160),
    (
        {"kick": "X.X.......xx....", "snare": "....X..g.g..X..g", "ride": "x.o.x.o.x.o.x.o."},
        {"kick": "X.X.......x.....", "snare": "....X..g.g....X.", "ride": "x.o.x.o.x.o.x.o."},
        {"kick": "..xx......x.....", "snare": ".g..X..g.g....X.", "ride": "x.o.x.o.x.o.x.o."},
    ),
    swing=(0.0, 0.1),
    ghosts=0.05,
)
_ONE_DROP = DrumPattern(
    "one_drop",
    (70, 92),
    (
        {"kick": "........X.......", "rim": "........X..o....", "closed_hat": "X.oox.o.X.oox.o."},
        {
            "kick": "........X.......",
            "rim": "......o.X.....o.",
            "closed_hat": "X.oox.o.X.oox...",
            "open_hat": "..............o.",
        },
    ),
    swing=(0.05, 0.25),
)
_SHUFFLE = DrumPattern(
    "shuffle",
    (80, 140),
    (
        {"kick": "X....xX.....", "snare": "...X.....X..", "closed_hat": "X.oX.oX.oX.o"},
        {"kick": "X.....X.x...", "snare": "..gX....gX..", "closed_hat": "X.oX.oX.oX.o"},
    ),
    swing=(-0.08, 0.12),
    ghosts=0.08,
)
_SWING = DrumPattern(
    "swing",
    (105, 160),
    (
        {
            "kick": "o..o..o..o..",
            "pedal_hat": "...X.....X..",
            "ride": "X..X.oX..X.o",
            "snare": ".....g......",
        },
        {
            "kick": "o..o..o.ox..",
            "pedal_hat": "...X.....X..",
            "ride": "X..X.oX..X.o",
            "snare": "..o.......og",
        },
    ),
    swing=(-0.08, 0.08),
    ghosts=0.05,
)
DRUM_PATTERNS = (
    _ROCK,
    _FUNK,
    _BOSSA,
    _FOUR_ON_THE_FLOOR,
    _HALF_TIME,
    _BREAKBEAT,
    _ONE_DROP,
    _SHUFFLE,
    _SWING,
)

# Fills replace the last half of a bar, so their grids are half as long.
FILLS: dict[int, tuple[Bar, ...]] = {
    16: (
        {"snare": "xoxo....", "high_tom": "....xo..", "floor_tom": "......Xx"},
        {"snare": "X..xx...", "high_tom": ".....x..", "mid_tom": "......x.", "floor_tom": ".......X"},
        {"high_tom": "xx......", "mid_tom": "...xx...", "floor_tom": "......XX"},
        {"snare": "goxogoxX", "kick": "x...x..."},
    ),
    12: (
        {"snare": "xox...", "high_tom": "...xo.", "floor_tom": ".....X"},
        {"high_tom": "x.x...", "mid_tom": "...x..", "floor_tom": ".....X", "snare": ".....x"},
    ),
}

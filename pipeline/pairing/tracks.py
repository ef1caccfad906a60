"""What pairing works on: recordings, the tracks that they make, and the links between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from pipeline.pairing.records import SourceFile

Role = Literal["pair", "input", "target"]
"""What a track is good for: pairs of its own, or one side of pairs with other tracks."""

LeaveOut = Callable[[str, str, str], None]
"""Hears of a file that is left out: its path below the folder, a word for the reason, and the rest of the message."""


class Recording(NamedTuple):
    """A file that can be used, and how many whole windows it holds."""

    file: SourceFile
    windows: int

    @property
    def path(self) -> str:
        """Path below the folder of recordings."""
        return self.file.source

    @property
    def sha256(self) -> str:
        """Hash of the file: two recordings of one hash are one recording under two names."""
        return self.file.sha256


class Track(NamedTuple):
    """What is never torn apart by a split: one recording, or the two sides of a pair."""

    name: str
    recordings: tuple[Recording, ...]
    roles: frozenset[Role]


class Link(NamedTuple):
    """An input and its target, of one track or of two: the windows of each, by number, that go together."""

    tracks: tuple[str, ...]
    input: Recording
    target: Recording
    windows: tuple[tuple[int, int], ...]


def spread(count: int, most: int | None) -> Iterator[int]:
    """Give at most `most` of the numbers below `count`, evenly over all of them; all of them for None."""
    if most is None or most >= count:
        yield from range(count)
    else:
        yield from ((2 * place + 1) * count // (2 * most) for place in range(most))

"""What a verification says: the levels that it goes to, and the problems that it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shards.errors import printable

Level = Literal["size", "structure", "crc", "sha256", "full"]
LEVELS: tuple[Level, ...] = ("size", "structure", "crc", "sha256", "full")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and what to do; `offset` is the byte of the file where the member begins."""

    file: str
    what: str
    mend: str
    key: str | None = None
    offset: int | None = None

    def __str__(self) -> str:
        """Say it in one line."""
        where = f"{self.file}: sample {self.key}" if self.key else self.file
        place = "" if self.offset is None else f", at byte {self.offset}"
        return printable(f"{where}: {self.what}{place}; {self.mend}")


def reaches(level: Level, wanted: Level) -> bool:
    """Whether a verification to `level` includes what is done at `wanted`."""
    return LEVELS.index(level) >= LEVELS.index(wanted)

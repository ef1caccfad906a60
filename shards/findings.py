"""What a verification says: the levels that it goes to, and the problems that it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shards.errors import printable

Level = Literal["size", "structure", "crc", "sha256", "full"]
LEVELS: tuple[Level, ...] = ("size", "structure", "crc", "sha256", "full")

RESTORE = "restore the shard from a copy, or encode the dataset again"
RESTORE_FILE = "restore the file from a copy, or encode the dataset again"
ENCODE_AGAIN = "encode the dataset again"
PAIR_AGAIN = "pair the sources again"
DELETE = "delete it"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and what to do."""

    file: str
    what: str
    mend: str
    key: str | None = None

    def __str__(self) -> str:
        """Say it in one line."""
        where = f"{self.file}: sample {self.key}" if self.key else self.file
        return printable(f"{where}: {self.what}; {self.mend}")


def reaches(level: Level, wanted: Level) -> bool:
    """Whether a verification to `level` includes what is done at `wanted`."""
    return LEVELS.index(level) >= LEVELS.index(wanted)

"""The folder of recordings: which files there are, what their headers say, and their hashes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pipeline.pairing.records import SAMPLE_RATE, SourceFile
from pipeline.pairing.tracks import LeaveOut, Recording
from shards.audio import EXTENSIONS, AudioError, probe
from shards.errors import MisuseError
from shards.files import sha256_file
from shards.parallel import in_order

Progress = Callable[[str, int, int], None]
"""Hears what is being done, how many files are done, and of how many."""


class LeftOut(NamedTuple):
    """A file that no pair was made of: its path below the folder, a word for the reason, and the whole message."""

    path: str
    reason: str
    message: str


def find_audio(root: Path) -> list[str]:
    """Sorted paths below `root` of all files that are audio by their extension; hidden ones are passed over.

    Raises `MisuseError` where there are none.
    """
    files = (path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    names = sorted(file.as_posix() for file in files if not any(part.startswith(".") for part in file.parts))
    if not names:
        raise MisuseError(f"{root}: no audio files here; name a folder with {', '.join(EXTENSIONS)} in it")
    return names


def select(root: Path, option: str, pattern: str, names: Collection[str]) -> list[str]:
    """Those of the audio files `names` that a folder or a glob pattern, both relative to `root`, covers.

    A pattern may name folders as well: all that is in them is meant. Raises `MisuseError` where nothing matches.
    """
    literal = root / pattern
    try:
        found = [literal] if pattern and literal.exists() else root.glob(pattern)
        places = {PurePosixPath(path.relative_to(root).as_posix()) for path in found}
    except (ValueError, NotImplementedError, IndexError):
        raise MisuseError(f"{option} {pattern}: no folder or pattern below {root}; write it relative to that") from None
    chosen = [name for name in names if not places.isdisjoint([PurePosixPath(name), *PurePosixPath(name).parents])]
    if not chosen:
        raise MisuseError(
            f"{root}: no audio file matches {option} {pattern}; name a folder in it, or a pattern such as "
            "'*/drums' or '**/*drum*.wav'"
        )
    return chosen


def read_sources(
    root: Path, names: Sequence[str], window: int, leave_out: LeaveOut, progress: Progress
) -> dict[str, Recording]:
    """Read header and hash of each file, in a few threads; those without one whole window (samples) are left out."""
    recordings: dict[str, Recording] = {}
    for done, found in enumerate(in_order(lambda name: _read_source(root, name, window), names), 1):
        if isinstance(found, Recording):
            recordings[found.path] = found
        else:
            leave_out(*found)
        progress("reading", done, len(names))
    return recordings


def _read_source(root: Path, name: str, window: int) -> Recording | tuple[str, str, str]:
    path = root / name
    try:
        name.encode()
        header = probe(path)
        # Resampling may round the last sample away: what the header promises is tested again when it is decoded.
        windows = math.floor(header.frames * SAMPLE_RATE / header.sample_rate + 0.5) // window
        if windows < 1:
            length = window / SAMPLE_RATE
            return name, "too_short", f"shorter than one window of {length:g} s; use shorter ones (--seconds)"
        file = SourceFile(name, sha256_file(path), header.sample_rate, header.channels, round(header.seconds, 3))
    except UnicodeEncodeError:
        return name, "name", "its name is no text in UTF-8; rename it"
    except AudioError as error:
        return name, error.reason, f"{error.reason}: {error.detail}; repair the file or leave it out"
    except OSError as error:
        return name, "unreadable", f"{error.strerror or error}; make it readable"
    return Recording(file, windows)

"""Files that are either whole or not there: temporary name, fsync, rename."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from shards.errors import CascadenceError

COMPLETE = "COMPLETE"


def canonical_json(content: object) -> bytes:
    """`content` as one deterministic line of JSON: sorted keys, no spaces, no NaN."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256_bytes(content: bytes) -> str:
    """SHA-256 of `content`, in hex."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, in hex, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` for writing; it takes that name only when all of it is on the disk.

    After an exception nothing is left. The temporary name tells the host and process, so that a leftover of a
    killed process can be told from one that is still being written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp.{socket.gethostname()}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk is met in writing, which names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_file(path) as file:
        file.write(content)


def write_json(path: Path, content: object) -> None:
    """Write `content` to `path` atomically, as indented JSON with sorted keys."""
    write_bytes(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n")


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Fill a temporary directory that takes the name `path`, complete, at the end; an older one is replaced.

    The completion marker is written last and every file is synced before the rename. A reader that trusts only
    directories with `COMPLETE` in them (`is_complete`) never sees a half-written one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp.{socket.gethostname()}.{os.getpid()}")
    previous = path.with_name(f".{path.name}.previous")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in sorted(p for p in temporary.rglob("*") if p.is_file()):
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        write_bytes(temporary / COMPLETE, b"")
        if path.exists():
            remove_directory(previous)
            path.rename(previous)
        temporary.rename(path)
        sync_directory(path.parent)
        remove_directory(previous)
    except OSError as error:
        if error.errno is not None and str(error.filename or temporary).startswith(str(temporary)):
            error.filename = str(path)  # nobody knows the temporary name
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_directory(path: Path, marker: str = COMPLETE) -> None:
    """Delete a directory, its marker first: a crash in between leaves nothing that looks complete."""
    (path / marker).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def is_complete(path: Path) -> bool:
    """Whether a directory was written to its end by `atomic_directory`."""
    return (path / COMPLETE).is_file()


def read_json(path: Path) -> object:
    """Read a JSON file. Raises `CascadenceError`, naming the file, where it is missing or no JSON."""
    try:
        return parse_json(path.read_bytes(), path)
    except FileNotFoundError:
        raise CascadenceError(f"{path}: there is no such file") from None


def parse_json(document: bytes, path: Path | str) -> object:
    """Parse the content of a JSON file. Raises `CascadenceError`, naming the file, where it is none."""
    try:
        return json.loads(document)
    except (ValueError, RecursionError) as error:  # also numbers and nesting past Python's limits
        raise CascadenceError(f"{path}: not valid JSON ({error}); restore it from a copy") from None

"""The pairs file: text that a person can read and edit, and what is in it is what counts.

JSON lines: a header, then one line for each source file, then one pair a line, paths relative to the header's root.
"""

from __future__ import annotations

import gc
import hashlib
import json
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

import pydantic
from pydantic import TypeAdapter

from pipeline.pairing.records import Pair, Pairs, PairsHeader, SourceFile
from shards.errors import MisuseError
from shards.files import atomic_file, canonical_json

# In valid JSON an unescaped quote on both sides makes it a key, and a pair has no such key.
_IS_SOURCE = re.compile(rb'"source"\s*:')
_PAIRS_AT_ONCE = 4096
_PAIR_LINE, _SOURCE_LINE = TypeAdapter(Pair), TypeAdapter(SourceFile)


class _LineError(ValueError):
    """What is wrong with a line, by its number."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(fault)
        self.line = line


def write_pairs(path: Path, pairs: Pairs) -> None:
    """Write a pairs file atomically."""
    with atomic_file(path) as file:
        file.writelines(f"{json.dumps(line)}\n".encode() for line in _lines(pairs))


def read_pairs(path: Path) -> Pairs:
    """Read a pairs file. Raises `MisuseError`, naming the line, where it is none or where its splits leak."""
    try:
        with path.open("rb") as file, _no_collection():
            header, files, pairs, lines = _parse(file)
            _check_unique(pairs, lines)
            _check_splits(pairs, lines, files)
            digest = pairs_digest(pairs)
    except FileNotFoundError:
        raise MisuseError(f"{path}: there is no such pairs file; make one with `python -m pipeline pair`") from None
    except _LineError as error:
        raise MisuseError(
            f"{path}: line {error.line}: {error}; mend the line, or make the file with `python -m pipeline pair`"
        ) from None
    if not pairs:
        raise MisuseError(f"{path}: holds no pair; make it again with `python -m pipeline pair`")
    # Of the pairs that are there: a person may have edited them.
    header = header.model_copy(update={"pairs_sha256": digest})
    return Pairs(header=header, files=tuple(files.values()), pairs=tuple(pairs))


def pairs_digest(pairs: Iterable[Pair]) -> str:
    """SHA-256 of the canonical JSON of the pairs, each as [split, group, [path, start], [path, start]]."""
    digest = hashlib.sha256()
    texts = _canonical(pairs)
    opening = "["
    while some := ",".join(islice(texts, _PAIRS_AT_ONCE)):
        digest.update(f"{opening}{some}".encode())
        opening = ","
    digest.update(b"]" if opening == "," else b"[]")
    return digest.hexdigest()


def _canonical(pairs: Iterable[Pair]) -> Iterator[str]:
    known: dict[tuple[str, str, str, str], tuple[str, str]] = {}  # most pairs differ from another in the starts only
    for split, group, (input_path, input_start), (target_path, target_start) in pairs:
        place = (split, group, input_path, target_path)
        if (text := known.get(place)) is None:
            head = canonical_json([split, group, [input_path]]).decode()[:-2]
            text = known[place] = head, canonical_json([target_path]).decode()[:-1]
        yield f"{text[0]},{input_start}],{text[1]},{target_start}]]"


def _lines(pairs: Pairs) -> Iterator[object]:
    yield pairs.header.model_dump()
    yield from (file._asdict() for file in pairs.files)
    yield from (pair.as_json() for pair in pairs.pairs)


def _parse(file: IO[bytes]) -> tuple[PairsHeader, dict[str, SourceFile], list[Pair], Sequence[int]]:
    """Give the header, the sources by path, the pairs, and the number of each pair's line."""
    files: dict[str, SourceFile] = {}
    pairs: list[Pair] = []
    lines = array("Q")
    number, parse_pair = 1, _PAIR_LINE.validate_json
    try:
        header = PairsHeader.model_validate_json(file.readline())
        for number, line in enumerate(file, 2):
            try:
                pairs.append(parse_pair(line))
                lines.append(number)
            except pydantic.ValidationError:  # rare, so the pairs pay nothing for it
                if _IS_SOURCE.search(line):
                    _add_source(files, _SOURCE_LINE.validate_json(line), number)
                elif line.strip():
                    raise
    except pydantic.ValidationError as error:
        raise _LineError(number, _fault(error)) from None
    return header, files, pairs, lines


def _add_source(files: dict[str, SourceFile], file: SourceFile, number: int) -> None:
    if file.source in files:
        raise _LineError(number, f"source: {file.source!r} is listed above")
    files[file.source] = file


def _fault(error: pydantic.ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}{': ' if where else ''}{first['msg'].replace(' at line 1 column ', ' at column ')}"


def _check_unique(pairs: Sequence[Pair], lines: Sequence[int]) -> None:
    if len(set(pairs)) == len(pairs):
        return
    first: dict[Pair, int] = {}
    for pair, line in zip(pairs, lines, strict=True):
        if first.setdefault(pair, line) != line:
            raise _LineError(line, f"the same pair as in line {first[pair]}")


def _check_splits(pairs: Sequence[Pair], lines: Sequence[int], files: Mapping[str, SourceFile]) -> None:
    """Refuse a group, a file, or a recording under two names that lies in two splits."""
    places = dict.fromkeys((pair.split, pair.group, pair.input.path, pair.target.path) for pair in pairs)
    group_splits: dict[str, str] = {}
    file_splits: dict[str, str] = {}
    owners: dict[str, str] = {}
    for place in places:
        split, group, *paths = place
        fault = ""
        if (other := group_splits.setdefault(group, split)) != split:
            fault = f"split: the track {group!r} is in {other} above, and a track stays in one split"
        for path in paths:
            if (other := file_splits.setdefault(path, split)) != split:
                fault = fault or f"split: the file {path!r} is in {other} above, and a file stays in one split"
            owner = owners.setdefault(files[path].sha256, path) if path in files else path
            if (other := file_splits[owner]) != split:
                fault = fault or f"split: {path!r} is the same recording as {owner!r}, which is in {other} above"
        if fault:
            wrong = next(n for n, p in enumerate(pairs) if (p.split, p.group, p.input.path, p.target.path) == place)
            raise _LineError(lines[wrong], fault)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the collector of cycles still: looking through a million new pairs again and again takes a third longer."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

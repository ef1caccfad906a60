"""Which recording goes with which: from a folder of audio to a list of pairs that a person can read and edit.

A pairs file is JSON lines: a header with the settings, then one pair a line, paths relative to the header's root.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import pydantic
from pydantic import Field

from shards.audio import EXTENSIONS, probe
from shards.errors import CascadenceError, MisuseError
from shards.files import canonical_json, sha256_bytes, write_bytes
from shards.schema import Record, SideName

Mode = Literal["suffix", "continuation"]
FORMAT = "cascadence-pairs"
SAMPLE_RATE: Final = 24_000
SPLIT_FOLDERS = ("train", "val")

Refuse = Callable[[str], None]
_SUFFIX = re.compile(r"(?P<stem>.+)_(?P<side>input|output|target)")


class PairsHeader(Record):
    """The first line of a pairs file."""

    format: Literal["cascadence-pairs"] = "cascadence-pairs"
    version: Literal[1] = 1
    mode: Mode
    root: str
    window_samples: int = Field(gt=0)
    sample_rate: Literal[24_000] = SAMPLE_RATE
    seed: int
    val_fraction: float
    pairs_sha256: str


class Cut(Record):
    """A window of one file: it starts at sample `start`, at the header's sample rate."""

    path: str
    start: int = Field(ge=0)


class Pair(Record):
    """An input window and the target window that goes with it."""

    split: str = Field(pattern=r"^\w[\w-]*$", description="names a folder")
    group: str
    input: Cut
    target: Cut

    @property
    def sides(self) -> tuple[tuple[SideName, Cut], tuple[SideName, Cut]]:
        """Both windows, by side."""
        return ("input", self.input), ("target", self.target)

    def as_json(self) -> dict[str, Any]:
        """Give the pair as plain data."""
        return self.model_dump()


class Pairs(Record):
    """A pairs file, read."""

    header: PairsHeader
    pairs: tuple[Pair, ...]
    sources: dict[str, str] = {}


def make_pairs(
    source: Path, mode: Mode, seconds: float, seed: int, val_fraction: float, skip_unusable: bool = False
) -> tuple[Pairs, tuple[str, ...]]:
    """Pair the recordings under `source`; returns the pairs and a line for each file left out.

    `suffix` pairs `X_input` with `X_output` or `X_target`; `continuation` pairs each window of a track with the
    one after it. Splits are by track: the folders `train` and `val` where there are some, else a seeded draw.
    Deterministic. Raises `MisuseError` for a folder without audio, and `CascadenceError` for a file without
    partner or one that can't be read, unless `skip_unusable`.
    """
    files = sorted(p for p in source.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
    if not files:
        raise MisuseError(f"{source}: no audio files here; name a folder with {', '.join(EXTENSIONS)} in it")
    window = round(seconds * SAMPLE_RATE)
    left_out: list[str] = []

    def refuse(message: str) -> None:
        if not skip_unusable:
            raise CascadenceError(f"{message}, or add --skip-unusable to go on without it")
        left_out.append(message)

    tracks = {}
    for path in files:
        try:
            tracks[path] = _windows(path, window)
        except CascadenceError as error:
            refuse(str(error))
    find = _suffix_pairs if mode == "suffix" else _continuation_pairs
    found = list(find(source, tracks, window, refuse))
    if not found:
        raise CascadenceError(
            f"{source}: no pair of {seconds:g} s windows in {len(files)} files; use shorter windows (--seconds)"
        )
    pairs = _split(found, seed, val_fraction)
    header = PairsHeader(
        mode=mode,
        root=str(source.resolve()),
        window_samples=window,
        seed=seed,
        val_fraction=val_fraction,
        pairs_sha256=_digest(pairs),
    )
    return Pairs(header=header, pairs=pairs), tuple(left_out)


def write_pairs(path: Path, pairs: Pairs) -> None:
    """Write a pairs file atomically."""
    lines = [pairs.header.model_dump(), *(pair.model_dump() for pair in pairs.pairs)]
    write_bytes(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def read_pairs(path: Path) -> Pairs:
    """Read a pairs file. Raises `MisuseError`, naming the line, where it is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise MisuseError(f"{path}: there is no such pairs file; make one with `python -m pipeline pair`") from None
    except UnicodeDecodeError:
        raise MisuseError(f"{path}: not a pairs file; make one with `python -m pipeline pair`") from None
    number = 1
    try:
        header = PairsHeader.model_validate_json(lines[0] if lines else "")
        pairs: dict[Pair, int] = {}
        split_of: dict[str, str] = {}
        for number, line in enumerate(lines[1:], 2):
            if line.strip():
                pair = Pair.model_validate_json(line)
                _check_line(pair, pairs, split_of)
                pairs[pair] = number
    except ValueError as error:
        raise MisuseError(
            f"{path}: line {number}: {_fault(error)}; mend the line, or make the file with `python -m pipeline pair`"
        ) from None
    if not pairs:
        raise MisuseError(f"{path}: holds no pair; make it again with `python -m pipeline pair`")
    # Of the pairs that are there: a person may have edited them.
    return Pairs(header=header.model_copy(update={"pairs_sha256": _digest(tuple(pairs))}), pairs=tuple(pairs))


def _check_line(pair: Pair, before: dict[Pair, int], split_of: dict[str, str]) -> None:
    """Raise `ValueError` for a pair that was there before, or whose track is in another split."""
    if pair in before:
        raise ValueError(f"the same pair as in line {before[pair]}")
    other = split_of.setdefault(pair.group, pair.split)
    if other != pair.split:
        raise ValueError(f"split: the track {pair.group!r} is in {other} above, and a track stays in one split")


def _fault(error: ValueError) -> str:
    if not isinstance(error, pydantic.ValidationError):
        return str(error)
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}{': ' if where else ''}{first['msg'].replace(' at line 1 column ', ' at column ')}"


def _windows(path: Path, window: int) -> int:
    """Whole windows in a file, from its header."""
    source = probe(path)
    # Resampling may round the last sample away: what the header promises is tested again when the file is decoded.
    return math.floor(source.frames * SAMPLE_RATE / source.sample_rate + 0.5) // window


def _suffix_pairs(root: Path, tracks: dict[Path, int], window: int, refuse: Refuse) -> Iterable[tuple[str, Cut, Cut]]:
    sides: dict[str, dict[str, Path]] = {}
    for path in tracks:
        matched = _SUFFIX.fullmatch(path.stem)
        if matched is None:
            refuse(f"{path}: its name ends in neither _input nor _output nor _target; rename it or move it away")
            continue
        group = str(path.relative_to(root).with_name(matched["stem"]))
        side = "input" if matched["side"] == "input" else "target"
        if side in sides.setdefault(group, {}):
            refuse(f"{path}: {sides[group][side].name} is there as well; keep one of them")
            continue
        sides[group][side] = path
    for group, found in sides.items():
        if len(found) < 2:
            path = next(iter(found.values()))
            partner = "_output or _target" if "input" in found else "_input"
            refuse(f"{path}: has no partner {Path(group).name}{partner}{path.suffix}; add it or move the file away")
            continue
        shorter = min(found.values(), key=lambda path: tracks[path])
        if tracks[shorter] < 1:
            refuse(f"{shorter}: shorter than one window of {window / SAMPLE_RATE:g} s; use shorter ones (--seconds)")
        for number in range(tracks[shorter]):
            yield (
                group,
                Cut(path=str(found["input"].relative_to(root)), start=number * window),
                Cut(path=str(found["target"].relative_to(root)), start=number * window),
            )


def _continuation_pairs(
    root: Path, tracks: dict[Path, int], window: int, refuse: Refuse
) -> Iterable[tuple[str, Cut, Cut]]:
    for path, windows in tracks.items():
        name = str(path.relative_to(root))
        if windows < 2:
            refuse(f"{path}: shorter than two windows of {window / SAMPLE_RATE:g} s; use shorter ones (--seconds)")
        for number in range(windows - 1):
            yield name, Cut(path=name, start=number * window), Cut(path=name, start=(number + 1) * window)


def _split(found: Sequence[tuple[str, Cut, Cut]], seed: int, val_fraction: float) -> tuple[Pair, ...]:
    groups = sorted({group for group, _, _ in found})
    tops = {group.split("/")[0] for group in groups}
    if tops <= set(SPLIT_FOLDERS):
        split_of = {group: group.split("/")[0] for group in groups}
    else:
        drawn = sorted(groups, key=lambda group: sha256_bytes(canonical_json([seed, group])))
        count = round(val_fraction * len(groups))
        if val_fraction > 0 and len(groups) > 1:
            count = max(count, 1)
        count = min(count, len(groups) - 1)
        split_of = {group: "val" if place < count else "train" for place, group in enumerate(drawn)}
    return tuple(Pair(split=split_of[group], group=group, input=a, target=b) for group, a, b in found)


def _digest(pairs: Sequence[Pair]) -> str:
    return sha256_bytes(canonical_json([pair.model_dump() for pair in pairs]))

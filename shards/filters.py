"""The small language of `list --where`: comparisons on the columns of the index, joined with `and`.

A filter is parsed into comparisons and nothing else: no names are looked up in Python and nothing is evaluated.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.errors import MisuseError
from shards.index import INDEX_DTYPE, Index
from shards.schema import SIDES, ShardEntry

Mask = NDArray[np.bool_]

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_CLAUSE = re.compile(
    r"\s*(?P<column>[A-Za-z_][A-Za-z_0-9]*)\s*(?P<operator><=|>=|!=|==|=|<|>)\s*"
    r"(?:\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'|(?P<bare>[^\s'\"<>=!]+))\s*",
    re.ASCII,
)
_AND = re.compile(r"and\b", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)

_TEXTS = ("key", "split", "shard")
_NUMBERS = (*(name for name in INDEX_DTYPE.names or () if name not in _TEXTS), "bytes", "number", "rms", "shard")
COLUMNS = tuple(sorted({*_TEXTS, *_NUMBERS}))
"""What a filter may compare."""

EXAMPLE = "rms<0.01 and split=train"


@dataclass(frozen=True)
class Comparison:
    """One comparison of a filter."""

    column: str
    operator: str
    value: str


def parse_filter(text: str) -> tuple[Comparison, ...]:
    """Read a filter such as `rms<0.01 and split=train`.

    Columns are those of the index and `rms` (either side), `bytes` (the whole sample), `number` (in its split),
    `split`, `shard` (number or file) and `key` (its start). Raises `MisuseError` for anything else, with the nearest
    name for an unknown column.
    """
    found: list[Comparison] = []
    place = 0
    while True:
        matched = _CLAUSE.match(text, place)
        if matched is None:
            raise _misused(text, f"there is no comparison at {text[place:].strip()!r}")
        value = next(matched[name] for name in ("double", "single", "bare") if matched[name] is not None)
        found.append(_checked(text, Comparison(matched["column"], matched["operator"], value)))
        place = matched.end()
        if place == len(text):
            return tuple(found)
        joined = _AND.match(text, place)
        if joined is None:
            raise _misused(text, f"comparisons are joined with 'and', not with {text[place:].strip()!r}")
        place = joined.end()


def _checked(text: str, one: Comparison) -> Comparison:
    if one.column not in COLUMNS:
        near = difflib.get_close_matches(one.column, COLUMNS, 1, 0)
        raise MisuseError(
            f"--where {text!r}: there is no column {one.column!r}; did you mean {near[0]!r}? "
            f"Columns: {', '.join(COLUMNS)}"
        )
    number = _NUMBER.fullmatch(one.value) is not None
    if one.column not in _TEXTS and not number:
        raise _misused(text, f"{one.column} is compared with a number, not with {one.value!r}")
    if one.column in _TEXTS and not (number and one.column in _NUMBERS) and one.operator not in {"=", "==", "!="}:
        raise _misused(text, f"{one.column} is compared by = or !=, not by {one.operator}")
    return one


def _misused(text: str, what: str) -> MisuseError:
    return MisuseError(f"--where {text!r}: {what}; write it like {EXAMPLE!r}")


def apply_filter(
    comparisons: Sequence[Comparison], split: str, shards: Sequence[ShardEntry], index: Index
) -> NDArray[np.int64]:
    """Give the numbers [n], rising, of a split's samples that all comparisons hold for."""
    kept: Mask = np.ones(len(index), np.bool_)
    for one in comparisons:
        kept &= _mask(one, split, shards, index)
    return np.flatnonzero(kept)


def _mask(one: Comparison, split: str, shards: Sequence[ShardEntry], index: Index) -> Mask:
    compare = _OPERATORS[one.operator]
    if one.column == "split":
        return np.full(len(index), compare(split, one.value))
    if one.column == "key":
        starts: Mask = np.asarray(np.char.startswith(index["key"], one.value.encode()))
        return starts if compare(0, 0) else ~starts
    if one.column == "shard" and not _NUMBER.fullmatch(one.value):
        named = [i for i, shard in enumerate(shards) if one.value in {shard.file, shard.file.rpartition("/")[2]}]
        inside: Mask = np.isin(index["shard"], named)
        return inside if compare(0, 0) else ~inside
    value = float(one.value)
    if one.column == "rms":
        sides = [_compare(compare, index[f"{side}_rms"], value) for side in SIDES]
        return sides[0] | sides[1]
    if one.column == "number":
        return _compare(compare, np.arange(len(index)), value)
    if one.column == "bytes":
        parts = [name for name in INDEX_DTYPE.names or () if name.endswith("_bytes")]
        return _compare(compare, sum(index[name].astype(np.int64) for name in parts), value)
    return _compare(compare, index[one.column], value)


def _compare(compare: Callable[[Any, Any], Any], column: Any, value: float) -> Mask:
    if column.dtype.kind != "f":
        return np.asarray(compare(column, value))
    with np.errstate(over="ignore"):  # as the column is stored, so that `rms=0.1` holds for 0.1
        return np.asarray(compare(column, column.dtype.type(value)))

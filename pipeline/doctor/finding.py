"""What a check says: a verdict, the measured value in words and in numbers, and the mend."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

Status = Literal["ok", "warning", "failed", "skipped"]
Number = float | int | bool | str | None


class Verdict(NamedTuple):
    """What one check found: how it stands, in words, what to do about it, and the numbers behind it."""

    status: Status
    value: str
    mend: str
    measured: Mapping[str, Number]


@dataclass(frozen=True)
class Finding:
    """A verdict with the name of its check."""

    name: str
    status: Status
    value: str
    mend: str = ""
    measured: Mapping[str, Number] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Give the finding as plain data; JSON has no number that is not finite."""
        numbers = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in self.measured.items()}
        return asdict(self) | {"measured": numbers}


def ok(value: str, **measured: Number) -> Verdict:
    """Nothing needs to be done."""
    return Verdict("ok", value, "", measured)


def warning(value: str, mend: str, **measured: Number) -> Verdict:
    """A job would run, and a person should know."""
    return Verdict("warning", value, mend, measured)


def failed(value: str, mend: str, **measured: Number) -> Verdict:
    """A job would fail, or make something wrong."""
    return Verdict("failed", value, mend, measured)


def skipped(why: str) -> Verdict:
    """The check could not be made, or was not wanted."""
    return Verdict("skipped", why, "", {})

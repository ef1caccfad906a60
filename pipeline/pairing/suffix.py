"""Mode `suffix`: `X_input` goes with `X_output` or `X_target`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from pipeline.pairing.tracks import LeaveOut, Link, Recording, Track, spread

_SUFFIX = re.compile(r"(?P<stem>.+)_(?P<side>input|output|target)", re.DOTALL)
_NO_SUFFIX = "its name ends in neither _input nor _output nor _target; rename it or move it away"


def suffix_tracks(names: Iterable[str], usable: Mapping[str, Recording], leave_out: LeaveOut) -> list[Track]:
    """Make a track of every two files that belong together; `names` are all files, usable or left out before."""
    sides: dict[str, dict[str, str]] = {}
    # What can't be used comes last: of two targets of one name, the one that can be used is taken.
    for name in sorted(names, key=lambda name: (name not in usable, name)):
        path = PurePosixPath(name)
        matched = _SUFFIX.fullmatch(path.stem)
        if matched is None:
            if name in usable:
                leave_out(name, "no_suffix", _NO_SUFFIX)
            continue
        found = sides.setdefault(str(path.with_name(matched["stem"])), {})
        side = "input" if matched["side"] == "input" else "target"
        if side not in found:
            found[side] = name
        elif name in usable:
            leave_out(name, "twice", f"{PurePosixPath(found[side]).name} is there as well; keep one of them")
    return list(_tracks(sides, usable, leave_out))


def suffix_links(tracks: Iterable[Track], most: int | None) -> Iterator[Link]:
    """Pair the windows of both sides one by one, as many as the shorter side has, at most `most`."""
    for track in tracks:
        given, target = track.recordings
        count = min(given.windows, target.windows)
        yield Link((track.name,), given, target, tuple((number, number) for number in spread(count, most)))


def _tracks(
    sides: Mapping[str, Mapping[str, str]], usable: Mapping[str, Recording], leave_out: LeaveOut
) -> Iterator[Track]:
    for stem, found in sorted(sides.items()):
        good = [name for name in found.values() if name in usable]
        if len(good) == 2:
            yield Track(stem, (usable[found["input"]], usable[found["target"]]), frozenset({"pair"}))
        elif len(good) == len(found):
            path = PurePosixPath(good[0])
            partner = "_output or _target" if "input" in found else "_input"
            message = f"has no partner {PurePosixPath(stem).name}{partner}{path.suffix}; add it or move the file away"
            leave_out(good[0], "no_partner", message)
        elif good:
            (other,) = (name for name in found.values() if name not in usable)
            leave_out(good[0], "no_partner", f"its partner {PurePosixPath(other).name} can't be used; mend that one")

"""Which track lies in which split. Nothing leaks: a recording, under whatever names, is in one split alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from pipeline.pairing.tracks import LeaveOut, Role, Track
from shards.files import canonical_json, sha256_bytes

SPLIT_FOLDERS = ("train", "val")


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Bring names into an order that the seed draws; where two of them stand does not depend on the others."""
    return sorted(names, key=lambda name: sha256_bytes(canonical_json([seed, name])))


def components(ties: Iterable[Collection[str]]) -> dict[str, str]:
    """Name, for each name, the smallest of all names that ties lead to from it."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for tie in ties:
        roots = {root(name) for name in tie}
        smallest = min(roots)
        for other in roots:
            parent[other] = smallest
    return {name: root(name) for name in parent}


def own_splits(tracks: Iterable[Track]) -> bool:
    """Whether the folder has splits of its own: all of it lies in `train` or `val`, or there are both."""
    tops = {_top(track) for track in tracks}
    return tops <= set(SPLIT_FOLDERS) or tops >= set(SPLIT_FOLDERS)


def keep_own_splits(tracks: Sequence[Track], leave_out: LeaveOut) -> list[Track]:
    """Leave out what lies in neither folder, and of what lies in both the one to train on.

    What validates stays as it is: losses over it can then be compared with those of other data sets.
    """
    validation = {r.sha256: r.path for track in reversed(tracks) if _top(track) == "val" for r in track.recordings}
    kept = []
    for track in tracks:
        top = _top(track)
        if top == "val" or (top == "train" and validation.keys().isdisjoint(r.sha256 for r in track.recordings)):
            kept.append(track)
            continue
        for recording in track.recordings:
            if top != "train":
                leave_out(recording.path, "no_split", "lies in neither train/ nor val/; move it into one of them")
            elif other := validation.get(recording.sha256):
                leave_out(recording.path, "in_val", f"the same recording as {other}; keep it in one split alone")
            else:
                leave_out(recording.path, "no_partner", "its partner is in val/ as well; keep that in one split alone")
    return kept


def drop_copies(tracks: Iterable[Track], leave_out: LeaveOut) -> list[Track]:
    """Leave out tracks that hold the same recordings as an earlier one, which takes on their roles."""
    first: dict[tuple[str, ...], Track] = {}
    for track in tracks:
        content = tuple(recording.sha256 for recording in track.recordings)
        original = first.setdefault(content, track)
        if original is not track:
            first[content] = original._replace(roles=original.roles | track.roles)
            for recording, other in zip(track.recordings, original.recordings, strict=True):
                leave_out(recording.path, "copy", f"a copy of {other.path}; remove one of them")
    return list(first.values())


def same_content(tracks: Iterable[Track]) -> list[list[str]]:
    """Tie the tracks that share a recording."""
    by_hash: dict[str, list[str]] = {}
    for track in tracks:
        for recording in track.recordings:
            by_hash.setdefault(recording.sha256, []).append(track.name)
    return list(by_hash.values())


def assign_splits(tracks: Sequence[Track], seed: int, val_fraction: float) -> dict[str, str]:
    """Give each track its split: that of its folder where there are such folders, else a seeded draw."""
    if own_splits(tracks):
        return {track.name: str(_top(track)) for track in tracks}
    component_of = components(same_content(tracks))
    roles: dict[str, frozenset[Role]] = {}
    for track in tracks:
        component = component_of[track.name]
        roles[component] = roles.get(component, frozenset()) | track.roles
    # Inputs and targets are drawn apart: each split then has its share of both.
    held_out = {
        name
        for kind in set(roles.values())
        for name in _held_out([name for name, own in roles.items() if own == kind], kind, seed, val_fraction)
    }
    served = frozenset[Role]().union(*(roles[name] for name in held_out))
    if "pair" not in served and not served >= {"input", "target"}:
        held_out = set()
    return {name: "val" if component in held_out else "train" for name, component in component_of.items()}


def _held_out(names: Sequence[str], kind: frozenset[Role], seed: int, val_fraction: float) -> list[str]:
    least = 2 if kind >= {"input", "target"} else 1  # such a track needs another one to go with
    count = round(val_fraction * len(names))
    if val_fraction > 0:
        count = min(max(count, least), len(names) - least)
    return shuffled(names, seed)[:count] if count >= least else []


def _top(track: Track) -> str | None:
    folder, slash, _ = track.name.partition("/")
    return folder if slash else None

"""From a folder of recordings to pairs: each step in turn, and what was left out on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from pipeline.pairing.continuation import continuation_links, continuation_tracks
from pipeline.pairing.cross import cross_links, cross_tracks, measure_tempos
from pipeline.pairing.pairs_file import pairs_digest
from pipeline.pairing.records import SAMPLE_RATE, Cut, Mode, ModeOptions, Pair, Pairs, PairsHeader
from pipeline.pairing.sources import LeftOut, Progress, find_audio, read_sources, select
from pipeline.pairing.splits import assign_splits, components, drop_copies, keep_own_splits, own_splits, same_content
from pipeline.pairing.suffix import suffix_links, suffix_tracks
from pipeline.pairing.tracks import LeaveOut, Link, Recording, Track
from shards.errors import CascadenceError, MisuseError


def make_pairs(
    source: Path,
    mode: Mode,
    seconds: float,
    seed: int,
    val_fraction: float,
    options: ModeOptions | None = None,
    *,
    strict: bool = False,
    progress: Progress = lambda _doing, _done, _total: None,
) -> tuple[Pairs, tuple[LeftOut, ...]]:
    """Pair the recordings under `source`; returns the pairs and the files that were left out, with their reasons.

    `suffix` pairs `X_input` with `X_output` or `X_target`; `continuation` pairs each window of a track with the
    one after it; `cross` pairs each track of `options.inputs` with some of `options.targets`. Splits are by track:
    the folders `train` and `val` where there are some, else a seeded draw; no recording lies in two. Deterministic.
    Raises `MisuseError` for a folder without audio and for options that don't go together, and `CascadenceError`
    where no pair is left or, if `strict`, for the first file that can't be used.
    """
    options = _settle(mode, options or ModeOptions())
    names = find_audio(source)
    window = round(seconds * SAMPLE_RATE)
    left_out: list[LeftOut] = []

    def leave_out(name: str, reason: str, message: str) -> None:
        line = f"{source / name}: {message}"
        if strict:
            raise CascadenceError(f"{line}, or leave out --strict")
        left_out.append(LeftOut(name, reason, line))

    inputs = names if options.inputs is None else select(source, "--inputs", options.inputs, names)
    targets = names if options.targets is None else select(source, "--targets", options.targets, names)
    names = sorted({*inputs, *targets})
    usable = read_sources(source, names, window, leave_out, progress)
    tracks = _screen(_tracks(mode, names, usable, set(inputs), set(targets), leave_out), leave_out)
    tempos: dict[str, float | None] = {}
    if options.choose == "tempo":
        tempos = measure_tempos(source, tracks, leave_out, progress)
        tracks = [track for track in tracks if track.name in tempos]
    link = _linker(mode, options, seed, tempos)
    pairs = _pair(tracks, assign_splits(tracks, seed, val_fraction), link, window)
    if not pairs:
        counts = Counter(out.reason.replace("_", " ") for out in left_out)
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise CascadenceError(
            f"{source}: no pair of {seconds:g} s windows in {len(names)} files{f' ({reasons})' if reasons else ''}; "
            "use shorter windows (--seconds) or another --mode, or add --strict to see what is wrong with the first"
        )
    header = PairsHeader(
        mode=mode,
        root=str(source.resolve()),
        window_samples=window,
        seed=seed,
        val_fraction=val_fraction,
        pairs_sha256=pairs_digest(pairs),
        **options.model_dump(),
    )
    used = {cut.path for pair in pairs for cut in (pair.input, pair.target)}
    return Pairs(header=header, files=tuple(usable[path].file for path in sorted(used)), pairs=pairs), tuple(left_out)


def _settle(mode: Mode, options: ModeOptions) -> ModeOptions:
    """Fill in what the mode has defaults for. Raises `MisuseError` for other options, and missing ones."""
    own = options.model_dump(exclude={"max_per_track"}, exclude_none=True)
    if mode != "cross":
        if own:
            raise MisuseError(f"--{next(iter(own))} is an option of --mode cross; leave it out, or choose that mode")
        return options
    if options.inputs is None or options.targets is None:
        raise MisuseError(
            "--mode cross needs --inputs and --targets; name a folder or a pattern for each, such as "
            "--inputs drums --targets piano"
        )
    return options.model_copy(update={"partners": options.partners or 1, "choose": options.choose or "seeded"})


def _tracks(
    mode: Mode,
    names: Sequence[str],
    usable: Mapping[str, Recording],
    inputs: Collection[str],
    targets: Collection[str],
    leave_out: LeaveOut,
) -> list[Track]:
    if mode == "suffix":
        return suffix_tracks(names, usable, leave_out)
    if mode == "continuation":
        return continuation_tracks(usable.values(), leave_out)
    return cross_tracks(usable.values(), inputs, targets)


def _screen(tracks: Sequence[Track], leave_out: LeaveOut) -> list[Track]:
    """Leave out what would leak or be there twice."""
    return drop_copies(keep_own_splits(tracks, leave_out) if own_splits(tracks) else tracks, leave_out)


def _linker(
    mode: Mode, options: ModeOptions, seed: int, tempos: Mapping[str, float | None]
) -> Callable[[Sequence[Track]], Iterator[Link]]:
    if mode == "suffix":
        return partial(suffix_links, most=options.max_per_track)
    if mode == "continuation":
        return partial(continuation_links, most=options.max_per_track)
    return partial(cross_links, options=options, seed=seed, tempos=tempos)


def _pair(
    tracks: Sequence[Track],
    split_of: Mapping[str, str],
    link: Callable[[Sequence[Track]], Iterator[Link]],
    window: int,
) -> tuple[Pair, ...]:
    """Link the tracks inside each split, and name the groups that links and shared recordings tie together."""
    links = [
        (split, found)
        for split in sorted(set(split_of.values()))
        for found in link([track for track in tracks if split_of[track.name] == split])
    ]
    group_of = components([*same_content(tracks), *(found.tracks for _, found in links)])
    pairs = (
        Pair(
            split,
            group_of[found.tracks[0]],
            Cut(found.input.path, first * window),
            Cut(found.target.path, second * window),
        )
        for split, found in links
        for first, second in found.windows
    )
    return tuple(sorted(pairs, key=lambda pair: (pair.input, pair.target)))

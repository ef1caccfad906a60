"""Mode `continuation`: each window of a track goes with the one after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.pairing.tracks import LeaveOut, Link, Recording, Track, spread


def continuation_tracks(recordings: Iterable[Recording], leave_out: LeaveOut) -> list[Track]:
    """Make a track of every recording of two windows or more."""
    tracks = []
    for recording in recordings:
        if recording.windows < 2:
            leave_out(recording.path, "too_short", "shorter than two windows; use shorter ones (--seconds)")
        else:
            tracks.append(Track(recording.path, (recording,), frozenset({"pair"})))
    return tracks


def continuation_links(tracks: Iterable[Track], most: int | None) -> Iterator[Link]:
    """Pair each window with the next, at most `most` of a track."""
    for track in tracks:
        (recording,) = track.recordings
        windows = tuple((number, number + 1) for number in spread(recording.windows - 1, most))
        yield Link((track.name,), recording, recording, windows)

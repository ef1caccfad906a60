"""Mode `cross`: every input track goes with some of the target tracks of its own split."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.pairing.partners import choose_partners
from pipeline.pairing.records import ModeOptions
from pipeline.pairing.sources import Progress
from pipeline.pairing.tracks import LeaveOut, Link, Recording, Role, Track, spread
from shards.audio import AudioError, read
from shards.audio import Recording as Decoded
from shards.parallel import in_order

TEMPO_SECONDS = 60
"""How much from the middle of a track its tempo is taken from."""
_TEMPO_RATE = 22_050


def cross_tracks(recordings: Iterable[Recording], inputs: Collection[str], targets: Collection[str]) -> list[Track]:
    """Make a track of every recording; one that both patterns cover is both, and never its own partner."""
    covered: dict[Role, Collection[str]] = {"input": inputs, "target": targets}
    tracks = []
    for recording in recordings:
        roles = frozenset(role for role, names in covered.items() if recording.path in names)
        tracks.append(Track(recording.path, (recording,), roles))
    return tracks


def measure_tempos(
    root: Path, tracks: Sequence[Track], leave_out: LeaveOut, progress: Progress
) -> dict[str, float | None]:
    """Estimate the tempo (beats a minute) of each track, None for one without a beat; broken ones are left out.

    Raises `MisuseError` where the library for it is missing.
    """
    from pipeline.tempo import load_estimator

    estimate = load_estimator()

    def measure(track: Track) -> float | AudioError | None:
        try:
            return estimate(_middle(read(root / track.name)).mono(_TEMPO_RATE), _TEMPO_RATE)
        except AudioError as error:
            return error

    tempos: dict[str, float | None] = {}
    for done, (track, tempo) in enumerate(zip(tracks, in_order(measure, tracks), strict=True), 1):
        if isinstance(tempo, AudioError):
            leave_out(track.name, tempo.reason, f"{tempo.reason}: {tempo.detail}; repair the file or leave it out")
        else:
            tempos[track.name] = tempo
        progress("tempo", done, len(tracks))
    return tempos


def cross_links(
    tracks: Iterable[Track], options: ModeOptions, seed: int, tempos: Mapping[str, float | None]
) -> Iterator[Link]:
    """Pair the windows of each input with those of its partners, whose windows begin anew where they are fewer."""
    assert options.partners is not None
    assert options.choose is not None
    by_name = {track.name: track for track in tracks}
    inputs = [name for name, track in by_name.items() if "input" in track.roles]
    targets = [name for name, track in by_name.items() if "target" in track.roles]
    chosen = choose_partners(options.choose, inputs, targets, options.partners, seed, tempos)
    for name, partners in chosen.items():
        (given,) = by_name[name].recordings
        for partner in partners:
            (target,) = by_name[partner].recordings
            numbers = spread(given.windows, options.max_per_track)
            yield Link((name, partner), given, target, tuple((number, number % target.windows) for number in numbers))


def _middle(decoded: Decoded) -> Decoded:
    length = TEMPO_SECONDS * decoded.source.sample_rate
    start = max(0, (len(decoded.channels) - length) // 2)
    return decoded._replace(channels=decoded.channels[start : start + length])

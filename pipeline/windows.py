"""The windows that a shard needs: each source decoded once, ahead of the encoder, and cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.audio import Track, load_track
from pipeline.pairing import Cut
from pipeline.plan import ShardPlan
from shards.audio import AudioError, Samples
from shards.parallel import in_order
from shards.prefetch import prefetched


@dataclass(frozen=True)
class Window:
    """One window of a source, mono at the codec's rate [n], and the file it was cut from."""

    cut: Cut
    samples: Samples
    sha256: str
    sample_rate: int
    channels: int


def decode_windows(
    plan: ShardPlan, threads: int, refused_files: Mapping[str, AudioError]
) -> Iterator[tuple[Cut, Window | AudioError]]:
    """Give every window of a shard, or why it is refused, in the order in which the pairs need their sources.

    Sources are decoded in `threads` threads while the consumer encodes; at most one decoded source a thread waits.
    Those in `refused_files` are not opened.
    """

    def decode(path: str) -> list[tuple[Cut, Window | AudioError]]:
        cuts = sorted(plan.windows[path], key=lambda cut: cut.start)
        if path in refused_files:
            return [(cut, refused_files[path]) for cut in cuts]
        settings = plan.settings
        source, expected = plan.source(path), plan.sources.get(path)
        try:
            track = load_track(source, settings.codec.sample_rate, settings.screening, settings.loudness, expected)
        except AudioError as error:
            return [(cut, error) for cut in cuts]
        return [(cut, _cut(plan, track, cut)) for cut in cuts]

    def all_windows() -> Iterator[list[tuple[Cut, Window | AudioError]]]:
        # One thread of `in_order` works in the caller's: here that is the thread of `prefetched`.
        yield from in_order(decode, plan.windows, threads)

    for windows in prefetched(all_windows, depth=1):
        yield from windows


def _cut(plan: ShardPlan, track: Track, cut: Cut) -> Window | AudioError:
    settings = plan.settings
    try:
        samples = track.window(cut.start, settings.window_samples, settings.screening)
    except AudioError as error:
        return error
    return Window(cut, samples, track.sha256, track.sample_rate, track.channels)

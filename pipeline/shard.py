"""One shard from its plan: decode, screen, encode, write, and the receipt as the commit marker. Free of Ray."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.destination import Destination
from pipeline.encoder import Encoder
from pipeline.pairing import Cut, Pair
from pipeline.plan import ShardPlan, ShardSettings
from pipeline.trial import find_killers
from pipeline.windows import Window, decode_windows
from shards.audio import AudioError, encode_flac, envelope, rms, short
from shards.latents import cast, require_finite, snr_db
from shards.receipt import write_with_receipt
from shards.schema import Receipt, Reject, SampleRecord, Side, SideName
from shards.writer import Sample, sample_key


@dataclass(frozen=True)
class EncodedWindow:
    """A window as it is stored: latents [D, T] or codes [codebooks, T], its description, and its sound as FLAC."""

    stored: NDArray[Any]
    side: Side
    flac: bytes | None


def encode_shard(
    plan: ShardPlan, encoder: Encoder, destination: Destination, decode_threads: int = 1
) -> Iterator[float | Receipt]:
    """Make one shard and then its receipt, at `destination`; gives the done share now and then, the receipt last.

    Each window is encoded once, however many pairs it stands in. A pair whose audio can't be used is refused with its
    reason and noted in the receipt; it is never replaced. Where an earlier attempt at this shard died, a child
    process reads the sources first, and those that kill it are refused. Raises `DatasetError` where the shard is not
    what the plan expects.
    """
    with _attempt(plan, destination) as died_before:
        killers = find_killers(list(plan.windows), plan.settings.root) if died_before else {}
        decoded = decode_windows(plan, decode_threads, killers)
        total = sum(map(len, plan.windows.values()))
        encoded: dict[Cut, EncodedWindow | AudioError] = {}
        for cut, result in _encode_windows(decoded, plan, encoder):
            encoded[cut] = result
            yield len(encoded) / total
        made = [_make_sample(pair, plan.settings, encoded) for pair in plan.pairs]
        samples = [sample for sample in made if isinstance(sample, Sample)]
        rejected = [reject for reject in made if isinstance(reject, Reject)]
        with destination.workspace() as folder:
            receipt = write_with_receipt(
                folder, plan.file, plan.split, plan.sha256, samples, rejected, encoder.dequantize, plan.expected_sha256
            )
    yield receipt


@contextmanager
def _attempt(plan: ShardPlan, destination: Destination) -> Iterator[bool]:
    """Leave a mark while a shard is being made; gives whether one was there, of an attempt that died.

    An error is no death: it is reported, and takes the mark away.
    """
    mark = plan.receipt + ".begun"
    died_before = destination.exists(mark)
    if not died_before:
        destination.write(mark, b"")
    try:
        yield died_before
    finally:
        destination.remove([mark])


def _encode_windows(
    decoded: Iterable[tuple[Cut, Window | AudioError]], plan: ShardPlan, encoder: Encoder
) -> Iterator[tuple[Cut, EncodedWindow | AudioError]]:
    """Encode windows in the encoder's batches; refusals pass through."""

    def usable() -> Iterator[Window]:
        for cut, result in decoded:
            if isinstance(result, Window):
                yield result
            else:
                refused.append((cut, result))

    refused: list[tuple[Cut, AudioError]] = []
    windows = usable()
    while batch := list(islice(windows, encoder.batch_size)):
        for window, latents in zip(batch, encoder.encode([window.samples for window in batch]), strict=True):
            yield window.cut, _describe(window, latents, plan, encoder)
    yield from refused


def _describe(
    window: Window, latents: NDArray[np.float32], plan: ShardPlan, encoder: Encoder
) -> EncodedWindow | AudioError:
    """Bring latents [D, T] into the stored form, with all that their record says of them."""
    settings, cut = plan.settings, window.cut
    try:
        stored, snr = _store(latents, settings, encoder)
    except ValueError as error:
        return AudioError(plan.source(cut.path), "latents", str(error))
    side = Side(
        path=cut.path,
        sha256=window.sha256,
        sample_rate=window.sample_rate,
        channels=window.channels,
        start=cut.start,
        valid_frames=stored.shape[1],
        rms=rms(window.samples),
        peak=short(np.abs(window.samples).max()),
        envelope=envelope(window.samples),
        cast_snr_db=round(snr, 2),
    )
    wanted = plan.windows[cut.path][cut].intersection(settings.audio)
    return EncodedWindow(stored, side, encode_flac(window.samples, settings.codec.sample_rate) if wanted else None)


def _store(latents: NDArray[np.float32], settings: ShardSettings, encoder: Encoder) -> tuple[NDArray[Any], float]:
    """Bring latents [D, T] into the stored form; returns it and its signal to noise ratio in dB.

    Raises `ValueError` for latents that can't be stored so.
    """
    if settings.latents != "codes":
        return cast(latents, settings.latents)
    require_finite(latents)
    codes = encoder.quantize(latents)
    return codes, snr_db(latents, encoder.dequantize(codes))


def _make_sample(
    pair: Pair, settings: ShardSettings, encoded: Mapping[Cut, EncodedWindow | AudioError]
) -> Sample | Reject:
    sides: dict[SideName, EncodedWindow] = {}
    for name, cut in pair.sides:
        window = encoded[cut]
        if isinstance(window, AudioError):
            return Reject(
                input=pair.input.path,
                target=pair.target.path,
                side=name,
                reason=window.reason,
                detail=f"{cut.path}: {window.detail}",
            )
        sides[name] = window
    record = SampleRecord(
        key=sample_key(sides["input"].side, sides["target"].side, settings.codec_fingerprint),
        split=pair.split,
        group=pair.group,
        pairing=settings.pairing,
        pairing_seed=settings.pairing_seed,
        codec_fingerprint=settings.codec_fingerprint,
        input=sides["input"].side,
        target=sides["target"].side,
    )
    audio = {name: window.flac for name, window in sides.items() if name in settings.audio and window.flac}
    return Sample(record, sides["input"].stored, sides["target"].stored, audio)

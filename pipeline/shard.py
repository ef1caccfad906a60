"""One shard from its plan: decode, screen, encode, write, and the receipt as the commit marker. Free of Ray."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.audio import Track, load_track
from pipeline.pairing import Cut, Pair
from pipeline.plan import ShardPlan, ShardSettings
from shards.audio import AudioError, Samples, encode_flac, envelope, rms, short
from shards.codec import Codec
from shards.latents import cast, require_finite, snr_db
from shards.receipt import write_with_receipt
from shards.schema import Receipt, Reject, SampleRecord, Side, SideName
from shards.writer import Sample, sample_key

TRACKS_IN_MEMORY = 4
"""Pairs are sorted by place, so a track's windows come one after another; a pair needs two tracks."""

LoadTrack = Callable[[Path], Track]


def encode_shard(plan: ShardPlan, codec: Codec, folder: Path) -> Receipt:
    """Make one shard under `folder` and then its receipt.

    A pair whose audio can't be used is refused with its reason and noted in the receipt; it is never replaced.
    """
    settings = plan.settings

    @lru_cache(maxsize=TRACKS_IN_MEMORY)
    def track(path: Path) -> Track:
        return load_track(path, settings.codec.sample_rate, settings.screening)

    samples: list[Sample] = []
    rejected: list[Reject] = []
    for pair in plan.pairs:
        result = _encode_pair(pair, settings, codec, track)
        if isinstance(result, Sample):
            samples.append(result)
        else:
            rejected.append(result)
    dequantize = partial(_dequantize, codec)
    return write_with_receipt(folder, plan.file, plan.split, plan.sha256, samples, rejected, dequantize)


def finished(plan: ShardPlan, folder: Path) -> Receipt | None:
    """Read the receipt of a shard that an earlier run finished.

    None where it is missing or of another plan, and where a file that was refused has been mended since: people
    mend what `rejects.jsonl` names and run the same command again.
    """
    path = folder / plan.receipt
    try:
        receipt = Receipt.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if receipt.plan_sha256 != plan.sha256:
        return None
    shard = folder / plan.file
    if receipt.samples and (not shard.is_file() or shard.stat().st_size != receipt.bytes):
        return None
    refused = {Path(plan.settings.root, name) for reject in receipt.rejected for name in (reject.input, reject.target)}
    if any(_changed_since(source, path.stat().st_mtime_ns) for source in refused):
        return None
    return receipt


def _changed_since(path: Path, moment: int) -> bool:
    """Whether a file was written, or moved to its place, after `moment` (ns since the epoch)."""
    try:
        return path.stat().st_ctime_ns > moment
    except OSError:
        return False


def _encode_pair(pair: Pair, settings: ShardSettings, codec: Codec, track: LoadTrack) -> Sample | Reject:
    stored, sides = {}, {}
    audio: dict[SideName, bytes] = {}
    cuts: dict[SideName, Cut] = {"input": pair.input, "target": pair.target}
    for name, cut in cuts.items():
        try:
            stored[name], sides[name], window = _encode_side(cut, settings, codec, track)
            if name in settings.audio:
                audio[name] = encode_flac(window, settings.codec.sample_rate)
        except AudioError as error:
            return Reject.model_validate(
                {
                    "input": pair.input.path,
                    "target": pair.target.path,
                    "side": name,
                    "reason": error.reason,
                    "detail": f"{cut.path}: {error.detail}",
                }
            )
    record = SampleRecord(
        key=sample_key(sides["input"], sides["target"], settings.codec_fingerprint),
        split=pair.split,
        group=pair.group,
        pairing=settings.pairing,
        pairing_seed=settings.pairing_seed,
        codec_fingerprint=settings.codec_fingerprint,
        input=sides["input"],
        target=sides["target"],
    )
    return Sample(record, stored["input"], stored["target"], audio)


def _encode_side(
    cut: Cut, settings: ShardSettings, codec: Codec, track: LoadTrack
) -> tuple[NDArray[Any], Side, Samples]:
    """Give what is stored of one side [D or codebooks, T], its description, and its window's audio [n]."""
    source = track(Path(settings.root, cut.path))
    audio = source.window(cut.start, settings.window_samples, settings.screening)
    encoded = codec.encode(torch.from_numpy(audio)[None, None])[0].numpy()
    try:
        stored, snr = _store(encoded, settings, codec)
    except ValueError as error:
        raise AudioError(source.path, "latents", str(error)) from None
    side = Side(
        path=cut.path,
        sha256=source.sha256,
        sample_rate=source.sample_rate,
        channels=source.channels,
        start=cut.start,
        valid_frames=stored.shape[1],
        rms=rms(audio),
        peak=short(np.abs(audio).max()),
        envelope=envelope(audio),
        cast_snr_db=round(snr, 2),
    )
    return stored, side, audio


def _store(encoded: NDArray[np.float32], settings: ShardSettings, codec: Codec) -> tuple[NDArray[Any], float]:
    """Bring latents [D, T] into the stored form; returns it and its signal to noise ratio in dB.

    Raises `ValueError` for latents that can't be stored so.
    """
    if settings.latents != "codes":
        return cast(encoded, settings.latents)
    require_finite(encoded)
    codes = codec.quantize(torch.from_numpy(encoded)[None])[0].numpy()
    return codes, snr_db(encoded, _dequantize(codec, codes))


def _dequantize(codec: Codec, codes: NDArray[np.int16]) -> NDArray[np.float32]:
    """Latents [D, T] of codes [codebooks, T]."""
    return codec.dequantize(torch.from_numpy(codes)[None])[0].numpy()

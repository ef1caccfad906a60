"""What may be wrong with one sample: its members, record, arrays and audio, as deep as a level asks for."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.checksum import crc32
from shards.errors import DatasetError
from shards.findings import ENCODE_AGAIN, RESTORE, Level, Problem, reaches
from shards.latents import all_finite, channel_sums
from shards.manifest import codec_fingerprint
from shards.schema import CODEBOOK_SIZE, ENVELOPE_SEGMENTS, SIDES, ChannelSums, Manifest, SampleRecord, Side
from shards.wire import HEAD_BYTES, Member, array_header, array_layout, decode_array, held_audio, is_whole, layout
from shards.writer import sample_key

FLAC_MARK = b"fLaC"
SAMPLE_RATE = 24_000
STEP = 1 / (1 << 15)
"""Of 16-bit audio: how far FLAC may lie from the peaks that its record tells."""


ROUNDING = 1e-5
"""Of numbers with six digits."""


@dataclass(frozen=True)
class Found:
    """A sample that a walk found whole.

    `crc32` is empty below the level `crc`, `sums` (of stored latents, by side) below `full` and for codes.
    """

    record: SampleRecord
    members: dict[str, Member]
    crc32: dict[str, int]
    sums: dict[str, ChannelSums]


def check_sample(
    content: mmap.mmap,
    name: str,
    members: tuple[Member, ...],
    level: Level,
    manifest: Manifest | None,
    found: list[Found],
) -> Iterator[Problem]:
    """Check one sample of the shard `name`; one whose members and record are there is added to `found`.

    Without a manifest the shard's first sample tells which sides have audio.
    """
    key = members[0].key
    audio = manifest.audio if manifest is not None else _audio(found[0] if found else None, members)
    if not is_whole(members, audio):
        held = ", ".join(member.suffix for member in members)
        yield Problem(name, f"holds {held}, not {', '.join(layout(audio))}", RESTORE, key)
        return
    places = {member.suffix: member for member in members}
    try:
        record = SampleRecord.parse(_read(content, places["json"]))
    except DatasetError as error:
        yield Problem(name, f"its json is {error}", RESTORE, key)
        return
    if record.key != key:
        yield Problem(name, f"its json belongs to the key {record.key}", RESTORE, key)
    if manifest is not None and record.codec_fingerprint != codec_fingerprint(manifest.codec):
        yield Problem(name, "was made by another codec than the manifest names", ENCODE_AGAIN, key)
    sums: dict[str, ChannelSums] = {}
    for side in SIDES:
        what = _wrong_with_array(content, places[f"{side}.npy"], side, level, manifest)
        if what:
            yield Problem(name, f"{side}.npy {what}", RESTORE, key)
        elif reaches(level, "full"):
            stored = decode_array(_read(content, places[f"{side}.npy"]))
            if stored.dtype.kind == "f":
                sums[side] = channel_sums(stored)
            yield from (Problem(name, text, ENCODE_AGAIN, key) for text in _wrong_with_side(record, side, stored))
    for suffix in (f"{side}.flac" for side in audio):
        source = getattr(record, suffix.removesuffix(".flac"))
        what = _wrong_with_audio(_read(content, places[suffix]), source, level, manifest)
        if what:
            yield Problem(name, f"{suffix} {what}", RESTORE, key)
    if reaches(level, "full") and sample_key(record.input, record.target, record.codec_fingerprint) != key:
        yield Problem(name, "its key is not the hash of its sources, starts and codec", ENCODE_AGAIN, key)
    checksums = {m.suffix: _crc32(content, m) for m in members} if reaches(level, "crc") else {}
    found.append(Found(record, places, checksums, sums))


def _audio(first: Found | None, members: tuple[Member, ...]) -> tuple[str, ...]:
    return held_audio(members if first is None else tuple(first.members.values()))


def _read(content: mmap.mmap, member: Member) -> bytes:
    return content[member.offset : member.offset + member.size]


def _crc32(content: mmap.mmap, member: Member) -> int:
    with memoryview(content) as shard, shard[member.offset : member.offset + member.size] as payload:
        return crc32(payload)


def _wrong_with_array(
    content: mmap.mmap, member: Member, side: str, level: Level, manifest: Manifest | None
) -> str | None:
    head = content[member.offset : member.offset + min(member.size, HEAD_BYTES)]
    try:
        stored = array_layout(head, member.size)
    except ValueError as error:
        return f"can't be read: {error}"
    if manifest is not None:
        field = next(field for field in manifest.fields if field.name == side)
        if not head.startswith(array_header(np.dtype(field.dtype), field.shape)):
            return f"is {stored.dtype} {list(stored.shape)}, not {field.dtype} {list(field.shape)}"
    if not reaches(level, "crc"):
        return None
    with memoryview(content) as shard, shard[member.offset : member.offset + member.size] as payload:
        return _wrong_with_values(decode_array(payload))


def _wrong_with_values(values: NDArray[Any]) -> str | None:
    if values.dtype.kind != "f":
        if values.size and not 0 <= int(values.min()) <= int(values.max()) < CODEBOOK_SIZE:
            return f"holds codes outside [0, {CODEBOOK_SIZE})"
        return None
    return None if all_finite(values) else "holds values that are not finite"


def _wrong_with_side(record: SampleRecord, name: str, stored: NDArray[Any]) -> Iterator[str]:
    """Say where the record of a side contradicts itself, or its array [D, T]."""
    side: Side = getattr(record, name)
    if not 0 <= side.valid_frames <= stored.shape[-1]:
        yield f"its json says {side.valid_frames} valid frames of {name}, the array has {stored.shape[-1]}"
    if len(side.envelope) != ENVELOPE_SEGMENTS:
        yield f"its json's envelope of {name} has {len(side.envelope)} segments, not {ENVELOPE_SEGMENTS}"
    elif side.envelope and max(side.envelope) != side.peak:
        yield f"its json's envelope of {name} has the peak {max(side.envelope):g}, not {side.peak:g}"
    if not 0 <= side.rms <= side.peak * (1 + ROUNDING):
        yield f"its json says that {name} has the RMS {side.rms:g} and the peak {side.peak:g}"
    if side.start < 0:
        yield f"its json says that {name} starts at sample {side.start}"


def _wrong_with_audio(payload: bytes, side: Side, level: Level, manifest: Manifest | None) -> str | None:
    if not payload.startswith(FLAC_MARK):
        return "is no FLAC"
    if not reaches(level, "full"):
        return None
    # Here and not above: the decoder is needed at this level alone.
    from shards.audio import decode_flac, envelope, rms

    try:
        samples = decode_flac(payload, manifest.codec.sample_rate if manifest is not None else SAMPLE_RATE)
    except ValueError as error:
        return f"can't be used: {error}"
    if manifest is not None and len(samples) != manifest.window_samples:
        return f"has {len(samples)} samples, the window has {manifest.window_samples}"
    if len(samples) < ENVELOPE_SEGMENTS:
        return None
    told = np.minimum(side.envelope, 1.0)  # what lies beyond full scale was clipped
    if len(told) != ENVELOPE_SEGMENTS or np.abs(told - envelope(samples)).max() > 2 * STEP:
        return "does not sound as its json says: the envelopes differ"
    if side.peak <= 1 and abs(rms(samples) - side.rms) > 2 * STEP:
        return f"does not sound as its json says: its RMS is {rms(samples):g}, not {side.rms:g}"
    return None

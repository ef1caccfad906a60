"""What may be wrong with one sample: its members, record, arrays and audio, as deep as a level asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shards.audit.findings import Level, Problem, reaches
from shards.errors import DatasetError
from shards.latents import channel_sums
from shards.manifest import codec_fingerprint
from shards.mends import ENCODE_AGAIN, PAIR_AGAIN
from shards.scan import Payload
from shards.schema import ENVELOPE_SEGMENTS, SIDES, ChannelSums, Manifest, SampleRecord, Side, SideName
from shards.wire import ArrayLayout, array_header, decode_array, held_audio, layout
from shards.writer import sample_key

FLAC_MARK = b"fLaC"
SAMPLE_RATE = 24_000
STEP = 1 / (1 << 15)
"""Of 16-bit audio: how far FLAC may lie from the peaks that its record tells."""


ROUNDING = 1e-5
"""Of numbers with six digits."""


@dataclass(frozen=True)
class Expected:
    """What the samples of a shard must be like; None where a shard alone can't tell.

    `arrays` gives the header of each side's array, and its name for people.
    """

    suffixes: tuple[str, ...] | None = None
    split: str | None = None
    codec_fingerprint: str | None = None
    arrays: Mapping[str, tuple[bytes, str]] = field(default_factory=dict)
    window_samples: int | None = None
    sample_rate: int = SAMPLE_RATE

    @classmethod
    def of(cls, manifest: Manifest, split: str) -> Expected:
        """Say what a manifest promises of the samples of a split."""
        return cls(
            suffixes=layout(manifest.audio),
            split=split,
            codec_fingerprint=codec_fingerprint(manifest.codec),
            arrays={
                one.name: (array_header(np.dtype(one.dtype), one.shape), f"{one.dtype} {list(one.shape)}")
                for one in manifest.fields
            },
            window_samples=manifest.window_samples,
            sample_rate=manifest.codec.sample_rate,
        )


class Source(NamedTuple):
    """What a record says of one side's recording."""

    path: str
    sha256: str
    rms: float


class Place(NamedTuple):
    """Where a member's payload lies, and its CRC-32 where the level asks for it."""

    offset: int
    size: int
    crc32: int | None


class Found(NamedTuple):
    """What is remembered of a whole sample: little, because a shard has many. The record's envelopes are most of it.

    `sums`, of stored latents by side, are empty below `full`, and for codes.
    """

    key: str
    split: str
    group: str
    sources: dict[SideName, Source]
    places: dict[str, Place]
    sums: dict[str, ChannelSums]


@dataclass(frozen=True)
class Examination:
    """How one shard is looked at: under which name, how deep, for what; `read` gives a payload whole."""

    name: str
    level: Level
    expected: Expected
    mend: str
    read: Callable[[Payload], bytes]

    def wrong(self, key: str, what: str, mend: str | None = None, member: Payload | None = None) -> Problem:
        """Say what is wrong with a sample, or with one of its members."""
        return Problem(self.name, what, mend or self.mend, key, member.offset if member else None)


def check_sample(sample: tuple[Payload, ...], at: Examination, found: list[Found]) -> Iterator[Problem]:
    """Check one sample; one whose members and record are there is added to `found`.

    Where no members are expected, the shard's first sample tells which ones all have.
    """
    key = sample[0].key
    held = tuple(payload.suffix for payload in sample)
    suffixes = at.expected.suffixes or (tuple(found[0].places) if found else layout(held_audio(sample)))
    if held != suffixes:
        yield at.wrong(key, f"holds {', '.join(held)}, not {', '.join(suffixes)}")
        return
    members = dict(zip(held, sample, strict=True))
    deep = reaches(at.level, "full")
    try:
        record = SampleRecord.parse(members["json"].head)
    except DatasetError as error:
        yield at.wrong(key, f"its json is {error}", member=members["json"])
        return
    if record.key != key:
        yield at.wrong(key, f"its json belongs to the key {record.key}")
    if at.expected.split not in (None, record.split):
        yield at.wrong(key, f"belongs to the split {record.split}, not {at.expected.split}", PAIR_AGAIN)
    if at.expected.codec_fingerprint not in (None, record.codec_fingerprint):
        yield at.wrong(key, "was made by another codec than the manifest names", ENCODE_AGAIN)
    sums: dict[str, ChannelSums] = {}
    for side in SIDES:
        array = members[f"{side}.npy"]
        flac = members.get(f"{side}.flac")
        if what := _wrong_with_array(array, side, at.expected):
            yield at.wrong(key, f"{side}.npy {what}", member=array)
        elif deep:
            stored = decode_array(at.read(array))
            if stored.dtype.kind == "f":
                sums[side] = channel_sums(stored)
            for text in _wrong_with_side(record, side, stored):
                yield at.wrong(key, text, ENCODE_AGAIN, members["json"])
        if flac and (what := _wrong_with_audio(flac, getattr(record, side), at)):
            yield at.wrong(key, f"{side}.flac {what}", member=flac)
    if deep and sample_key(record.input, record.target, record.codec_fingerprint) != key:
        yield at.wrong(key, "its key is not the hash of its sources, starts and codec", ENCODE_AGAIN)
    sources = {side: _source(getattr(record, side)) for side in SIDES}
    places = {payload.suffix: Place(payload.offset, payload.size, payload.crc32) for payload in sample}
    found.append(Found(key, record.split, record.group, sources, places, sums))


def _source(side: Side) -> Source:
    return Source(side.path, side.sha256, side.rms)


def _wrong_with_array(array: Payload, side: str, expected: Expected) -> str | None:
    stored = array.array
    if not isinstance(stored, ArrayLayout):
        return f"can't be read: {stored}"
    if len(stored.shape) != 2 or 0 in stored.shape:
        return f"has the shape {list(stored.shape)}, not channels and frames"
    header, described = expected.arrays.get(side, (b"", ""))
    if not array.head.startswith(header):
        return f"is {stored.dtype} {list(stored.shape)}, not {described}"
    return array.flaw


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


def _wrong_with_audio(flac: Payload, side: Side, at: Examination) -> str | None:
    if not flac.head.startswith(FLAC_MARK):
        return "is no FLAC"
    if not reaches(at.level, "full"):
        return None
    # Here and not above: the decoder is needed at this level alone.
    from shards.audio import decode_flac, envelope, rms

    try:
        samples = decode_flac(at.read(flac), at.expected.sample_rate)
    except ValueError as error:
        return f"can't be used: {error}"
    if at.expected.window_samples not in (None, len(samples)):
        return f"has {len(samples)} samples, the window has {at.expected.window_samples}"
    if len(samples) < ENVELOPE_SEGMENTS:
        return None
    told = np.minimum(side.envelope, 1.0)  # what lies beyond full scale was clipped
    if len(told) != ENVELOPE_SEGMENTS or np.abs(told - envelope(samples)).max() > 2 * STEP:
        return "does not sound as its json says: the envelopes differ"
    if side.peak <= 1 and abs(rms(samples) - side.rms) > 2 * STEP:
        return f"does not sound as its json says: its RMS is {rms(samples):g}, not {side.rms:g}"
    return None

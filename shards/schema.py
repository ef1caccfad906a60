"""What a dataset of latents says about itself: the documents of the format, as typed records.

Every record refuses unknown keys and is immutable. The JSON of each is deterministic: sorted keys, no time.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shards.errors import DatasetError, printable

FORMAT_NAME = "cascadence-latents"
SCHEMA_VERSION = "2.0.0"
SideName = Literal["input", "target"]
SIDES: tuple[Literal["input"], Literal["target"]] = ("input", "target")
ENVELOPE_SEGMENTS = 250
CODEBOOK_BITS = 10
CODEBOOK_SIZE = 1 << CODEBOOK_BITS
"""Entries of each of the quantizer's codebooks: a code lies in [0, 1024)."""
LOUDEST = 1e9
"""No audio is this loud; the index stores levels as float32."""


class Record(BaseModel):
    """A frozen document that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CodecSpec(Record):
    """The codec that made the latents: two datasets fit one model only when these are equal."""

    name: Literal["encodec", "mdct"]
    sample_rate: int = 24_000
    hop: int = 320
    dim: int = 128
    stage: Literal["pre_quantizer", "quantized", "transform"]
    bandwidth: float | None = Field(default=None, description="kbit/s; None for a codec without a quantizer")
    weights_sha256: str | None = Field(default=None, description="None for a codec without weights")

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop

    def frames(self, samples: int) -> int:
        """Frames that `samples` audio samples give."""
        return -(-samples // self.hop)

    @property
    def codebooks(self) -> int:
        """Codes that the quantizer gives for a frame: 8 at 6 kbit/s; 0 for a codec without a quantizer."""
        return round((self.bandwidth or 0) * 1000 / (self.frame_rate * CODEBOOK_BITS))

    @property
    def rows(self) -> int:
        """Rows of a stored array: the latents' dimension D, or the codebooks where codes are stored."""
        return self.codebooks if self.stage == "quantized" else self.dim


class ArrayField(Record):
    """One array of every sample."""

    name: Literal["input", "target"]
    role: Literal["rhythm", "harmony"]
    dtype: Literal["float16", "float32", "int16"] = Field(description="int16 for codes, and for nothing else")
    shape: tuple[int, int] = Field(description="[D, T]; codes are [codebooks, T]")


class Side(Record):
    """Where one side of a pair was cut from, and how it sounds."""

    model_config = ConfigDict(allow_inf_nan=False)

    path: str = Field(description="relative to the folder that the pairs name as their root")
    sha256: str = Field(description="of the whole source file")
    sample_rate: int = Field(description="of the source file, before resampling")
    channels: int
    start: int = Field(description="first sample of the window, at the codec's sample rate")
    valid_frames: int = Field(description="latent frames that hold audio of the source")
    rms: float = Field(ge=0, lt=LOUDEST)
    peak: float = Field(ge=0, lt=LOUDEST)
    envelope: tuple[float, ...] = Field(description="peak of |audio| in each of 250 equal segments")
    cast_snr_db: float = Field(description="signal to noise ratio of the latents that the stored array stands for")


class SampleRecord(Record):
    """The `<key>.json` beside a sample's arrays."""

    schema_version: str = SCHEMA_VERSION
    key: str
    split: str
    group: str = Field(description="the track, or the pair; a group never appears in two splits")
    pairing: str
    pairing_seed: int
    codec_fingerprint: str
    input: Side
    target: Side

    @classmethod
    def parse(cls, payload: bytes) -> SampleRecord:
        """Read a record from a shard. Raises `DatasetError`, in one line, where it is none."""
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            first = error.errors()[0]
            where = printable(".".join(map(str, first["loc"])))
            raise DatasetError(f"no sample record ({where + ': ' if where else ''}{first['msg']})") from None


class Reject(Record):
    """An input that was refused, and why; it is never replaced by another."""

    input: str
    target: str
    side: Literal["input", "target", "pair"]
    reason: str
    detail: str


class ChannelSums(Record):
    """Sums from which a side's per-channel statistics follow, so that shards can be added up."""

    count: int
    total: tuple[float, ...]
    squares: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]


class IndexRow(Record):
    """Where a sample lies in its shard: byte offsets and sizes of the members' payloads, and their CRC-32."""

    key: str
    input_offset: int
    input_bytes: int
    input_crc32: int
    json_offset: int
    json_bytes: int
    json_crc32: int
    target_offset: int
    target_bytes: int
    target_crc32: int
    input_flac_offset: int = Field(0, description="this and the others of a FLAC member: 0 where there is none")
    input_flac_bytes: int = 0
    input_flac_crc32: int = 0
    target_flac_offset: int = 0
    target_flac_bytes: int = 0
    target_flac_crc32: int = 0
    input_rms: float
    target_rms: float


class Receipt(Record):
    """The commit marker of one written shard; written after the shard itself.

    A planned shard whose pairs were all refused has a receipt without samples and no file.
    """

    shard: str = Field(description="file, relative to the dataset")
    split: str
    plan_sha256: str = Field(description="hash of the pairs and settings that the shard was planned from")
    samples: int
    bytes: int
    sha256: str | None
    groups: tuple[str, ...]
    rows: tuple[IndexRow, ...]
    statistics: dict[str, ChannelSums] = Field(description="of the latents; none for codes written without the codec")
    rejected: tuple[Reject, ...]


class ShardEntry(Record):
    """A shard as the manifest lists it."""

    file: str
    samples: int
    bytes: int
    sha256: str


class SplitEntry(Record):
    """A split as the manifest lists it."""

    samples: int
    groups: int
    index_sha256: str
    shards: tuple[ShardEntry, ...]


class Build(Record):
    """What wrote the dataset; left out of the fingerprint."""

    git_commit: str | None
    versions: dict[str, str]
    config: dict[str, object]


class Manifest(Record):
    """`dataset.json`, written last: a folder without it is no dataset."""

    format: Literal["cascadence-latents"] = "cascadence-latents"
    schema_version: str = SCHEMA_VERSION
    name: str
    fingerprint: str = Field(description="sha256 of the content, without name, build and host")
    fields: tuple[ArrayField, ...]
    codec: CodecSpec
    window_samples: int = Field(description="audio samples of a sample's window, at the codec's sample rate")
    audio: tuple[SideName, ...] = Field((), description="sides whose window lies beside the arrays as FLAC")
    pairing: dict[str, object]
    splits: dict[str, SplitEntry]
    rejected: dict[str, int] = Field(description="refused pairs by reason")
    parents: tuple[str, ...] = ()
    build: Build

    @property
    def shards(self) -> list[ShardEntry]:
        """The shards of all splits, in order."""
        return [shard for entry in self.splits.values() for shard in entry.shards]

    @property
    def samples(self) -> int:
        """The samples of all splits."""
        return sum(entry.samples for entry in self.splits.values())

    @model_validator(mode="after")
    def _check(self) -> Manifest:
        quantized = self.codec.stage == "quantized"
        if any((field.dtype == "int16") != quantized for field in self.fields):
            raise ValueError("fields are int16 where the codec's stage is `quantized`, and only there")
        return self

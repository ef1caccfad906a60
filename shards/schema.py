"""What a dataset of latents says about itself: the documents of the format, as typed records.

Every record refuses unknown keys and is immutable. The JSON of each is deterministic: sorted keys, no time.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT_NAME = "cascadence-latents"
SCHEMA_VERSION = "1.0.0"
SIDES: tuple[Literal["input"], Literal["target"]] = ("input", "target")
ENVELOPE_SEGMENTS = 250


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

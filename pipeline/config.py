"""The configuration of an encode job."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.audio import ScreeningConfig
from shards.codec import Codec, load_codec
from shards.latents import Representation
from shards.schema import SideName
from shards.settings import Settings

CONFIGS = Path(__file__).parent / "configs"


class CodecConfig(Settings):
    """Which frozen codec encodes."""

    name: Literal["encodec", "mdct"] = "encodec"
    weights: str | None = Field(None, description="EnCodec's weights file; else the hub cache, else a download")
    allow_unknown_weights: bool = Field(False, description="take weights with another hash, and record it")

    def load(self) -> Codec:
        """Load the codec. Raises `CodecError` where its weights are missing or wrong."""
        return load_codec(self.name, self.weights, allow_unknown_weights=self.allow_unknown_weights)


class OutputConfig(Settings):
    """What is written."""

    name: str | None = Field(None, description="name of the dataset; else that of its folder")
    samples_per_shard: int = Field(256, ge=1)
    latents: Representation = Field("float16", description="float16: 73.7 dB on normal data; codes: 50x smaller")
    audio: Literal["none", "target", "both"] = Field("none", description="sides whose window is stored as FLAC, too")

    @property
    def audio_sides(self) -> tuple[SideName, ...]:
        """Sides whose window is stored as FLAC."""
        sides: dict[str, tuple[SideName, ...]] = {"none": (), "target": ("target",), "both": ("input", "target")}
        return sides[self.audio]


class EncodeConfig(Settings):
    """Everything that an encode job is told."""

    codec: CodecConfig = CodecConfig()
    output: OutputConfig = OutputConfig()
    screening: ScreeningConfig = ScreeningConfig()
    max_reject_fraction: float = Field(0.1, ge=0, le=1, description="more refused pairs than this fail the job")
    max_actors: int | None = Field(None, ge=1, description="encoders at work; else one a CPU core of the cluster")

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
    latents: Representation = Field("float16", description="float16: 73.7 dB on normal data; codes: 16x smaller")
    audio: Literal["none", "target", "both"] = Field("none", description="sides whose window is stored as FLAC, too")

    @property
    def audio_sides(self) -> tuple[SideName, ...]:
        """Sides whose window is stored as FLAC."""
        sides: dict[str, tuple[SideName, ...]] = {"none": (), "target": ("target",), "both": ("input", "target")}
        return sides[self.audio]


class EncoderConfig(Settings):
    """Where and how wide the codec runs."""

    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: GPUs where the cluster has any")
    batch_size: int = Field(16, ge=1, description="windows a GPU encodes at once, always exactly so many; a CPU: 1")
    gpus_per_actor: float = Field(0.5, gt=0, le=1, description="two actors on a GPU: one writes while one encodes")
    decode_threads: int = Field(4, ge=1, description="threads that decode ahead for a GPU actor; a CPU actor has one")
    max_actors: int | None = Field(None, ge=1, description="actors at most; else what the cluster's cores or GPUs hold")

    def threads(self, device: Literal["cpu", "gpu"]) -> int:
        """Threads that decode ahead: a CPU actor has one core for all, and a second thread would only take memory."""
        return self.decode_threads if device == "gpu" else 1


class EncodeConfig(Settings):
    """Everything that an encode job is told."""

    codec: CodecConfig = CodecConfig()
    output: OutputConfig = OutputConfig()
    screening: ScreeningConfig = ScreeningConfig()
    encoder: EncoderConfig = EncoderConfig()
    loudness: float | None = Field(
        None, ge=-70, le=0, description="LUFS that every track is brought to; else tracks stay as loud as they are"
    )
    max_reject_fraction: float = Field(0.1, ge=0, le=1, description="more refused pairs than this fail the job")

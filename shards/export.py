"""Samples out of a dataset, as files for other tools: arrays, records, decoded audio. Only audio needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from shards.audio import Samples, encode_flac, write_wav
from shards.errors import DatasetError
from shards.files import canonical_json, write_bytes
from shards.schema import SIDES
from shards.wire import encode_array
from shards.writer import Sample

if TYPE_CHECKING:
    from shards.codec import Codec

Format = Literal["npy", "wav", "flac", "json"]
FORMATS: tuple[Format, ...] = ("npy", "wav", "flac", "json")
AUDIO: tuple[Format, ...] = ("wav", "flac")


@dataclass(frozen=True)
class Decoded:
    """One side of a sample as audio: mono samples [n] that fit into [-1, 1], and what that took."""

    samples: Samples
    sample_rate: int
    rms: float
    peak: float

    @property
    def gain(self) -> float:
        """By how much `fitted` scales the audio: 1 unless it would clip."""
        return min(1.0, 1 / self.peak) if self.peak else 1.0

    @property
    def fitted(self) -> Samples:
        """The audio [n] scaled into [-1, 1], for files that hold no more."""
        return np.clip(self.samples * np.float32(self.gain), -1, 1) if self.gain < 1 else self.samples


def decode(codec: Codec, sample: Sample) -> dict[str, Decoded]:
    """Decode both sides of a sample, latents [D, T] each, into audio [hop * T]."""
    import torch

    decoded: dict[str, Decoded] = {}
    for side in SIDES:
        stored = torch.from_numpy(getattr(sample, side).copy())
        with torch.inference_mode():
            audio: Samples = codec.decode(codec.latents(stored[None]))[0, 0].numpy()
        if not np.isfinite(audio).all():
            raise DatasetError(
                f"sample {sample.record.key}: its {side} decodes to values that are not finite; "
                "`python -m shards verify` finds such samples"
            )
        rms = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))
        decoded[side] = Decoded(audio, codec.spec.sample_rate, rms, float(np.abs(audio).max(initial=0.0)))
    return decoded


def export_sample(sample: Sample, formats: Sequence[Format], folder: Path, codec: Codec | None) -> list[Path]:
    """Write a sample's files, `<key>.<side>.<format>` and `<key>.json`, each atomically; returns their paths.

    `npy` and `json` are the stored bytes. `wav` is 32-bit float, exactly what the codec gives; `flac` is 16-bit, and
    scaled down where the audio would clip. Those two need a codec.
    """
    key = sample.record.key
    written: list[Path] = []
    if "json" in formats:
        written.append(folder / f"{key}.json")
        write_bytes(written[-1], canonical_json(sample.record.model_dump()))
    if "npy" in formats:
        for side in SIDES:
            written.append(folder / f"{key}.{side}.npy")
            write_bytes(written[-1], encode_array(getattr(sample, side)))
    if any(kind in formats for kind in AUDIO):
        assert codec is not None, "audio needs a codec"
        for name, audio in decode(codec, sample).items():
            if "wav" in formats:
                written.append(folder / f"{key}.{name}.wav")
                write_wav(written[-1], audio.samples, audio.sample_rate, "FLOAT")
            if "flac" in formats:
                written.append(folder / f"{key}.{name}.flac")
                write_bytes(written[-1], encode_flac(audio.fitted, audio.sample_rate))
    return written

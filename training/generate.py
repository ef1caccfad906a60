"""A trained model makes music: latents of two sources in, levelled audio, pictures and numbers out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shards.audio import Samples, read, write_wav
from shards.codec import Codec
from shards.dataset import Dataset
from shards.errors import CascadenceError
from shards.files import atomic_directory, write_json
from training.checkpoint import Checkpoint
from training.data import require_finite
from training.losses.modulation import amplitude_envelope, envelope_correlation, segments_for
from training.models.build import Model
from training.models.cascade import ModelOutput
from training.plots import plot_spectrograms, plot_waveforms

MAXIMUM_GAIN = 3.0
SOFT_LIMIT = 0.9


@dataclass(frozen=True)
class SourcePair:
    """Two sources as latents [D, T] or as codes [codebooks, T], and a name for people."""

    name: str
    input: Tensor
    target: Tensor


@dataclass(frozen=True)
class Piece:
    """A generated piece: mono audio [n] of sources and output, and its metrics."""

    name: str
    audio: dict[str, Samples]
    metrics: dict[str, Any]


def pairs_from_shards(dataset: Dataset, checkpoint: Checkpoint, split: str, count: int) -> Iterator[SourcePair]:
    """Take the first `count` pairs of a split, or all that there are. Raises `DatasetError` for another codec."""
    dataset.require_codec(checkpoint.record.codec, "the checkpoint")
    batches = islice(dataset.loader(split, 1, mode="evaluate"), count)
    return (SourcePair(batch.keys[0], batch.input[0], batch.target[0]) for batch in batches)


def pair_from_audio(codec: Codec, input_file: Path, target_file: Path, *, quantized: bool = False) -> SourcePair:
    """Encode two audio files, cut to the shorter one, for a model of latents or of `quantized` ones.

    Raises `AudioError` where one can't be decoded.
    """
    recordings = [read(path).mono(codec.spec.sample_rate) for path in (input_file, target_file)]
    length = min(map(len, recordings)) // codec.spec.hop * codec.spec.hop
    if length == 0:
        raise CascadenceError(f"{input_file}, {target_file}: one of them is empty; give recordings with sound")
    latents = [codec.encode(torch.from_numpy(samples[:length])[None, None])[0] for samples in recordings]
    stored = [codec.quantize(one[None])[0] if quantized else one for one in latents]
    return SourcePair(f"{input_file.stem}+{target_file.stem}", stored[0], stored[1])


@torch.no_grad()
def generate(model: Model, codec: Codec, pair: SourcePair) -> Piece:
    """Make one piece: the model's output, decoded, brought to the sources' level (at most 3x) and soft-limited.

    Raises `DatasetError` where latents are not finite, and `CascadenceError` where the output is not.
    """
    source, goal = codec.latents(pair.input[None]), codec.latents(pair.target[None])
    require_finite("input", [pair.name], source)
    require_finite("target", [pair.name], goal)
    output = model(source, goal)
    decoded = {
        name: codec.decode(latents)[0, 0].numpy()
        for name, latents in (("input", source), ("target", goal), ("output", output.latents))
    }
    if not np.isfinite(decoded["output"]).all():
        raise CascadenceError(f"{pair.name}: the output is not finite; use an earlier checkpoint")
    sources_rms = np.sqrt((_rms(decoded["input"]) ** 2 + _rms(decoded["target"]) ** 2) / 2)
    gain = min(MAXIMUM_GAIN, float(sources_rms / max(_rms(decoded["output"]), 1e-9)))
    decoded["output"] = decoded["output"] * np.float32(gain)
    audio = {name: soft_limit(samples) for name, samples in decoded.items()}
    return Piece(pair.name, audio, {"gain": gain, **describe(audio, codec.spec.sample_rate), **_agent_metrics(output)})


def write_piece(folder: Path, piece: Piece, sample_rate: int) -> None:
    """Write a piece's WAVs, waveforms, spectrograms and metrics as one complete directory."""
    with atomic_directory(folder) as inside:
        for name, samples in piece.audio.items():
            write_wav(inside / f"{name}.wav", samples, sample_rate)
        plot_waveforms(inside / "waveforms.png", piece.audio, sample_rate)
        plot_spectrograms(inside / "spectrograms.png", piece.audio, sample_rate)
        write_json(inside / "metrics.json", {"name": piece.name, **piece.metrics})


def soft_limit(samples: Samples) -> Samples:
    """Leave samples up to 0.9 as they are and bend what lies above towards 1.0, which is never reached."""
    over = np.abs(samples) - SOFT_LIMIT
    room = 1.0 - SOFT_LIMIT
    bent = np.sign(samples) * (SOFT_LIMIT + room * np.tanh(over / room) * (1 - 1e-6))
    return np.where(over > 0, bent, samples).astype(np.float32)


def describe(audio: dict[str, Samples], sample_rate: int) -> dict[str, float]:
    """Measure a piece: levels, and how much the output is like each of its sources (1 would be a copy)."""
    segments = segments_for(len(audio["output"]) / sample_rate)
    envelopes = {name: amplitude_envelope(torch.from_numpy(x)[None, None], segments) for name, x in audio.items()}
    metrics = {f"{name}_rms": _rms(samples) for name, samples in audio.items()}
    metrics["output_peak"] = float(np.abs(audio["output"]).max())
    for source in ("input", "target"):
        metrics[f"rms_ratio_{source}"] = _rms(audio["output"]) / max(_rms(audio[source]), 1e-9)
        metrics[f"waveform_correlation_{source}"] = _correlation(audio["output"], audio[source])
        metrics[f"envelope_correlation_{source}"] = float(envelope_correlation(envelopes["output"], envelopes[source]))
    return metrics


def _agent_metrics(output: ModelOutput) -> dict[str, float]:
    if output.agent is None:
        return {}
    return {name: float(value) for name, value in output.agent.metrics().items()}


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def _correlation(first: Samples, second: Samples) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float((first * second).sum() / max(np.linalg.norm(first) * np.linalg.norm(second), 1e-12))

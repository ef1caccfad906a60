"""A trained model makes music: latents of two sources in, levelled audio, pictures and numbers out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shards.audio import Samples, read, rms, write_wav
from shards.codec import Codec
from shards.dataset import Dataset
from shards.errors import CascadenceError
from shards.files import atomic_directory, write_json
from training.checkpoint import Checkpoint
from training.data import require_finite
from training.measures.likeness import sources_level
from training.measures.music import Ears
from training.measures.pair import listen, measure_pair
from training.models.cascade import AgentOutput, ModelOutput
from training.models.compositional_agent import COMPONENTS, CompositionalOutput
from training.plots import plot_components, plot_masks, plot_spectrograms, plot_waveforms

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
    """A generated piece: mono audio [n] of sources and output, its metrics, and what the agent decided.

    That is, where there is an agent of the kind: the masks [D, T] of input and target, or the weights [T] of the
    components, by name.
    """

    name: str
    audio: dict[str, Samples]
    metrics: dict[str, Any]
    masks: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    components: dict[str, NDArray[np.float32]] = field(default_factory=dict)


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
def generate(
    model: nn.Module,
    codec: Codec,
    pair: SourcePair,
    sources: Mapping[str, Samples] | None = None,
    ears: Ears | None = None,
) -> Piece:
    """Make one piece: the model's output, decoded, brought to the sources' level (at most 3x) and soft-limited.

    `sources` are those of `decode_sources`, where somebody has them. What is measured is the output as the model made
    it, before its level is changed, and its music with `ears` only. Raises `DatasetError` where latents are not
    finite, and `CascadenceError` where the output is not.
    """
    device = next(model.parameters()).device
    source, goal = _latents(codec, pair, device)
    require_finite("input", [pair.name], source)
    require_finite("target", [pair.name], goal)
    output: ModelOutput = model(source, goal)
    decoded = {**(sources or decode_sources(codec, pair, device)), "output": _decode(codec, output.latents)}
    if not np.isfinite(decoded["output"]).all():
        raise CascadenceError(f"{pair.name}: the output is not finite; use an earlier checkpoint")
    rate = codec.spec.sample_rate
    latents = {"output": output.latents.float(), "input": source, "target": goal}
    made, *sources_heard = (listen(latents[name], decoded[name], rate, ears) for name in latents)
    metrics = measure_pair(made, sources_heard[0], sources_heard[1], rate, ears)
    if output.agent is not None:
        metrics |= {name: float(value) for name, value in output.agent.metrics().items()}
    level = sources_level(decoded["input"], decoded["target"])
    gain = min(MAXIMUM_GAIN, level / max(rms(decoded["output"]), 1e-9))
    decoded["output"] = decoded["output"] * np.float32(gain)
    audio = {name: soft_limit(samples) for name, samples in decoded.items()}
    return Piece(pair.name, audio, {"gain": gain, **levels(audio), **metrics}, *_decisions(output.agent))


@torch.no_grad()
def decode_sources(codec: Codec, pair: SourcePair, device: torch.device) -> dict[str, Samples]:
    """Decode both sources of a pair, `input` and `target`, as they are: mono audio [n]."""
    named = zip(("input", "target"), _latents(codec, pair, device), strict=True)
    return {name: _decode(codec, latents) for name, latents in named}


def write_piece(folder: Path, piece: Piece, sample_rate: int) -> None:
    """Write a piece as one complete directory: WAVs of sources and output, numbers, and pictures of all it holds."""
    with atomic_directory(folder) as inside:
        fill_folder(inside, piece, sample_rate, ("input", "target", "output"))


def fill_folder(folder: Path, piece: Piece, sample_rate: int, tracks: tuple[str, ...]) -> None:
    """Write a piece's numbers, its pictures and the WAVs of some of its tracks into a folder that exists."""
    for name in tracks:
        write_wav(folder / f"{name}.wav", piece.audio[name], sample_rate)
    seconds = len(piece.audio["output"]) / sample_rate
    plot_waveforms(folder / "waveforms.png", piece.audio, sample_rate)
    plot_spectrograms(folder / "spectrograms.png", piece.audio, sample_rate)
    if piece.masks:
        plot_masks(folder / "masks.png", piece.masks, seconds)
    if piece.components:
        plot_components(folder / "components.png", piece.components, seconds)
    write_json(folder / "metrics.json", {"name": piece.name, **piece.metrics})


def soft_limit(samples: Samples) -> Samples:
    """Leave samples up to 0.9 as they are and bend what lies above towards 1.0, which is never reached."""
    over = np.abs(samples) - SOFT_LIMIT
    room = 1.0 - SOFT_LIMIT
    bent = np.sign(samples) * (SOFT_LIMIT + room * np.tanh(over / room) * (1 - 1e-6))
    return np.where(over > 0, bent, samples).astype(np.float32)


def levels(audio: Mapping[str, Samples]) -> dict[str, float]:
    """RMS of each track of a piece, as it is heard, and the output's peak."""
    return {f"{name}_rms": rms(samples) for name, samples in audio.items()} | {
        "output_peak": float(np.abs(audio["output"]).max())
    }


def _latents(codec: Codec, pair: SourcePair, device: torch.device) -> tuple[Tensor, Tensor]:
    source, goal = (codec.latents(stored[None].to(device)) for stored in (pair.input, pair.target))
    return source, goal


def _decode(codec: Codec, latents: Tensor) -> Samples:
    decoded: Samples = codec.decode(latents.float())[0, 0].cpu().numpy()
    return decoded


def _decisions(agent: AgentOutput | None) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """What an agent decided about one pair: masks [D, T], and weights [T] of components."""
    if agent is None:
        return {}, {}
    if isinstance(agent, CompositionalOutput):
        weights = agent.weights[0].float().cpu().numpy()
        return {}, dict(zip(COMPONENTS, weights, strict=True))
    return {side: getattr(agent, f"{side}_mask")[0].float().cpu().numpy() for side in ("input", "target")}, {}

"""Two sources for a piece: from a dataset, or from any two recordings, cut into the windows that a model knows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from shards.audio import AudioError, Samples, read
from shards.codec import Codec
from shards.dataset import Dataset
from shards.errors import CascadenceError
from shards.files import sha256_file
from training.checkpoint import Checkpoint
from training.data import targets_of
from training.windows import Cut, cut_windows, plan_windows

Length = Literal["shorter", "longer", "input", "target"]
"""Which recording decides how long a piece is."""
Fill = Literal["repeat", "silence"]
"""What follows a recording that is too short."""

_SEAM_SECONDS = 0.005
"""A repeated recording fades out and in over this much, so that the seam does not click."""


@dataclass(frozen=True)
class SourcePair:
    """Two sources, cut alike into windows: latents [W, D, F] of each or codes [W, codebooks, F].

    `samples` is the length of the sound, None for all that the frames hold. `origin` tells one source from another, to
    the byte, and `labels` gives people a word for each side.
    """

    name: str
    input: Tensor
    target: Tensor
    cut: Cut
    samples: int | None = None
    origin: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def stored_pair(
    name: str,
    source: Tensor,
    goal: Tensor,
    window: int | None = None,
    origin: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> SourcePair:
    """Make a pair of what a dataset stores, latents [D, T] or codes [codebooks, T] of the same length.

    It is cut where it is longer than `window` frames. What is shorter stays as it is: a model takes fewer frames.
    """
    frames = source.shape[-1]
    cut = plan_windows(frames, min(frames, window or frames))
    return SourcePair(name, cut_windows(source, cut), cut_windows(goal, cut), cut, None, origin or {}, labels or {})


def pairs_from_shards(
    dataset: Dataset, checkpoint: Checkpoint, split: str, count: int, shuffle_seed: int | None = None
) -> Iterator[SourcePair]:
    """Take the first `count` pairs of a split, or all that there are.

    With a seed each input gets the target of another pair of the split, never its own. Raises `DatasetError` for
    another codec, and `MisuseError` for an unknown or empty split, or one that has no other target.
    """
    dataset.require_codec(checkpoint.record.codec, "the checkpoint")
    targets = targets_of(dataset, split, shuffle_seed)[:count].tolist()
    return (_read_pair(dataset, split, own, goal, checkpoint.record.frames) for own, goal in enumerate(targets))


def _read_pair(dataset: Dataset, split: str, own: int, other: int, window: int) -> SourcePair:
    sample = dataset.read(dataset.location(split, own))
    partner = sample if other == own else dataset.read(dataset.location(split, other))
    keys = {"input": sample.record.key, "target": partner.record.key}
    return stored_pair(
        sample.record.key if partner is sample else f"{keys['input'][:12]}+{keys['target'][:12]}",
        torch.tensor(sample.input),
        torch.tensor(partner.target),
        window,
        {"dataset": dataset.manifest.fingerprint, **keys},
        {"input": sample.record.input.path, "target": partner.record.target.path},
    )


def pair_from_audio(
    codec: Codec,
    input_file: Path,
    target_file: Path,
    window: int,
    *,
    length: Length = "shorter",
    fill: Fill = "repeat",
    quantized: bool = False,
    device: torch.device | str = "cpu",
    batch_size: int = 4,
) -> SourcePair:
    """Encode two recordings of any length, rate and number of channels, window by window as a dataset's are.

    `length` says which of them decides how long the piece is; the other one is cut there, or repeated, or followed by
    silence. `quantized` is for a model of codes. Raises `AudioError` where one can't be decoded or holds values that
    are no numbers, and `CascadenceError` where one is shorter than two frames of the codec.
    """
    files = {"input": input_file, "target": target_file}
    sounds = {side: _read_mono(path, codec.spec.sample_rate) for side, path in files.items()}
    lengths = {side: len(samples) for side, samples in sounds.items()}
    samples = lengths[length] if length in lengths else (min if length == "shorter" else max)(lengths.values())
    if min(lengths.values()) < 2 * codec.spec.hop:
        short = min(files, key=lambda side: lengths[side])
        raise CascadenceError(
            f"{files[short]}: is too short, less than two frames of the codec; give a longer recording"
        )
    frames = math.ceil(samples / codec.spec.hop)
    cut = plan_windows(frames, window)
    encoded = {}
    for side, sound in sounds.items():
        fitted = torch.from_numpy(_fit(sound, samples, fill, codec.spec.sample_rate))
        batches = torch.split(cut_windows(fitted, cut.times(codec.spec.hop))[:, None], batch_size)
        encoded[side] = torch.cat([_encode(codec, batch.to(device), quantized=quantized) for batch in batches])
    return SourcePair(
        f"{input_file.stem}+{target_file.stem}",
        encoded["input"],
        encoded["target"],
        cut,
        samples,
        {side: sha256_file(path) for side, path in files.items()} | {"length": length, "fill": fill},
        {side: path.name for side, path in files.items()},
    )


def _encode(codec: Codec, audio: Tensor, *, quantized: bool) -> Tensor:
    latents = codec.encode(audio)
    return (codec.quantize(latents) if quantized else latents).cpu()


def _read_mono(path: Path, sample_rate: int) -> Samples:
    samples = read(path).mono(sample_rate)
    if not np.isfinite(samples).all():
        raise AudioError(path, "not_finite", "it holds values that are no numbers")
    return samples


def _fit(samples: Samples, length: int, fill: Fill, sample_rate: int) -> Samples:
    """Bring samples [n] to a length: cut, or followed by silence or by themselves."""
    if len(samples) >= length:
        return samples[:length]
    if fill == "silence":
        return np.pad(samples, (0, length - len(samples)))
    fade = min(round(_SEAM_SECONDS * sample_rate), len(samples) // 2)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    looped = samples.copy()
    looped[:fade] *= ramp
    looped[len(looped) - fade :] *= ramp[::-1]
    repeated = np.tile(looped, math.ceil(length / len(samples)))[:length]
    repeated[:fade] = samples[:fade]  # where it begins there is no seam
    return repeated

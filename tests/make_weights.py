"""EnCodec's architecture with seeded weights that behave like the published ones, which no test may download."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import encodec.model
import safetensors.torch
import torch
from torch import Tensor

ENCODER_GAIN, DECODER_GAIN = 2.5, 1.4
"""Of each convolution. As torch initializes them, sound dies away on its way: latents are all but constant. With these
gains latents of music have an RMS of 5, as the published weights give, and the audio changes with them."""


@dataclass(frozen=True)
class SeededWeights:
    """A weights file under the name that the package gives it, its SHA-256, and its tensors by name."""

    path: Path
    sha256: str
    state: dict[str, Tensor]


def make_weights(path: Path, seed: int = 0) -> SeededWeights:
    """Write seeded weights, 93 MB, to `path`."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # torch's older weight norm
        torch.manual_seed(seed)
        state = dict(encodec.model.EncodecModel.encodec_model_24khz(pretrained=False).state_dict())
        for name, tensor in state.items():
            if name.endswith("weight_g"):
                tensor.mul_(ENCODER_GAIN if name.startswith("encoder.") else DECODER_GAIN)
            elif name.endswith(("embed", "embed_avg")):
                tensor.normal_()  # else all zero, and every code 0
            elif name.endswith(("inited", "cluster_size")):
                tensor.fill_(1)
    torch.save(state, path)
    return SeededWeights(path, sha256_of(path), state)


def write_converted(
    path: Path, state: dict[str, Tensor], *, newer_weight_norm: bool = False, training_buffers: bool = True
) -> Path:
    """Write the same tensors as safetensors under the names of the Hugging Face conversion; gives `path`."""
    converted = {}
    for name, tensor in state.items():
        if not training_buffers and name.endswith(("inited", "cluster_size", "embed_avg")):
            continue
        for given, other in (
            ("encoder.model.", "encoder.layers."),
            ("decoder.model.", "decoder.layers."),
            (".conv.conv.", ".conv."),
            (".convtr.convtr.", ".conv."),
            ("quantizer.vq.", "quantizer."),
            ("._codebook.", ".codebook."),
        ):
            name = name.replace(given, other)
        if newer_weight_norm:
            name = name.replace("weight_g", "parametrizations.weight.original0")
            name = name.replace("weight_v", "parametrizations.weight.original1")
        converted[name] = tensor.contiguous()
    safetensors.torch.save_file(converted, path)
    return path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

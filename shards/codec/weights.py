"""EnCodec's weights: where they are found, the proof that they are the ones meant, and their two namings.

`torch.load` never unpickles more than tensors here, and no file is trusted for its name or its place: its
SHA-256 is taken at each load, from the same open file that is then read.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from shards.errors import CodecError

WEIGHTS_FILE = "encodec_24khz-d7cc33bc.th"
WEIGHTS_BYTES = 93_171_529
WEIGHTS_SHA256 = "d7cc33bcf1aad7f2dad9836f36431530744abeace3ca033005e3290ed4fa47bf"

DOWNLOAD_TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 20
# What training EnCodec needs beside the codebook itself. A conversion may leave them out.
TRAINING_BUFFERS = ("inited", "cluster_size", "embed_avg")
# With weight norm and, as in the 48 kHz model, without, in both namings: its shape tells the channels.
FIRST_CONVOLUTION = (
    "encoder.model.0.conv.conv.weight_v",
    "encoder.model.0.conv.conv.weight",
    "encoder.layers.0.conv.weight",
)


@dataclass(frozen=True)
class Weights:
    """A weights file as read: its path, its SHA-256 (hexadecimal) and its tensors by name."""

    path: Path
    sha256: str
    tensors: dict[str, Tensor]


def read_weights(path: Path | str | None, root_url: str, *, allow_unknown: bool = False) -> Weights:
    """Find, verify and read EnCodec's weights: `path`, else the torch hub cache, else a download from `root_url`.

    `allow_unknown` accepts another hash, of a file named by `path` only: what the cache and the download are is
    fixed. Raises `CodecError` for a file that is missing, not the one meant, or not a checkpoint.
    """
    chosen = weights_path(path)
    if path is None and not chosen.is_file():
        _download(f"{root_url.rstrip('/')}/{WEIGHTS_FILE}", chosen)
    try:
        with chosen.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 != WEIGHTS_SHA256 and not (allow_unknown and path is not None):
                raise CodecError(_refusal(chosen, size, sha256, cached=path is None))
            file.seek(0)
            return Weights(chosen, sha256, _tensors(file, chosen))
    except OSError as error:
        raise CodecError(
            f"weights file {chosen} can't be read ({error.strerror or error}); check --codec-weights"
        ) from error


def weights_path(path: Path | str | None) -> Path:
    """Where the weights are read from: `path`, else the torch hub cache, where the `encodec` package has them too."""
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE if path is None else Path(path).expanduser()


def fit_to(weights: Weights, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of `weights` under the names of `expected`, the model's own state, and no others.

    The names may be the package's or those of the Hugging Face conversion of the same model. Raises `CodecError`
    unless every tensor has its place and its shape.
    """
    names = {_converted_name(name): name for name in expected}
    tensors: dict[str, Tensor] = {}
    for given, tensor in weights.tensors.items():
        # The newer form of weight norm stores the same two tensors under other names.
        plain = given.replace(".parametrizations.weight.original0", ".weight_g")
        plain = plain.replace(".parametrizations.weight.original1", ".weight_v")
        tensors[names.get(plain, plain)] = tensor
    _fill_training_buffers(tensors, expected)
    fault = _mismatch(tensors, expected)
    if fault:
        raise CodecError(
            f"weights file {weights.path} does not fit EnCodec's 24 kHz model: {fault}; pass {WEIGHTS_FILE}"
        )
    return tensors


def _download(url: str, target: Path) -> None:
    """Fetch `url` into `target`, which appears only once it is whole, verified and on the disk."""
    # A name of its own, so that processes that fetch at the same time don't write into one file.
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
    digest = hashlib.sha256()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The address is the package's own constant.
        with (
            urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as source,  # noqa: S310
            partial.open("xb") as file,
        ):
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != WEIGHTS_SHA256:
            raise CodecError(
                f"the download of {WEIGHTS_FILE} has SHA-256 {digest.hexdigest()}, not {WEIGHTS_SHA256}; "
                "try again, or fetch the file elsewhere and pass it with --codec-weights"
            )
        partial.replace(target)
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise CodecError(
            f"EnCodec's weights {WEIGHTS_FILE} (SHA-256 {WEIGHTS_SHA256}) are not in {target.parent} and can't be "
            f"downloaded ({reason}); fetch the file elsewhere and pass it with --codec-weights"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _refusal(path: Path, size: int, sha256: str, *, cached: bool) -> str:
    found = f"weights file {path} has SHA-256 {sha256} and {size} bytes"
    found += f" instead of {WEIGHTS_SHA256} and {WEIGHTS_BYTES}"
    if cached:
        return f"{found}; delete it to have it fetched again, or pass another file with --codec-weights"
    return f"{found}; pass {WEIGHTS_FILE}, or accept this file with --codec-allow-unknown-weights"


def _tensors(file: BinaryIO, path: Path) -> dict[str, Tensor]:
    """Read a checkpoint of tensors by name, in PyTorch's format or as safetensors."""
    try:
        # A safetensors file starts with eight bytes of length and a JSON object; its name proves nothing.
        is_safetensors = file.read(9)[8:] == b"{"
        file.seek(0)
        if is_safetensors:
            return safetensors.torch.load(file.read())
        with warnings.catch_warnings():
            # About the file's age, which nobody here can mend.
            warnings.simplefilter("ignore")
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        raise CodecError(
            f"weights file {path} is damaged or no checkpoint of tensors; fetch {WEIGHTS_FILE} again"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CodecError(f"weights file {path} holds more than tensors by name; pass {WEIGHTS_FILE}")
    return {str(name): tensor for name, tensor in state.items()}


def _converted_name(name: str) -> str:
    """Translate the package's name of a tensor into the Hugging Face name."""
    name = re.sub(r"^(encoder|decoder)\.model\.", r"\1.layers.", name)
    name = name.replace(".conv.conv.", ".conv.").replace(".convtr.convtr.", ".conv.")
    return re.sub(r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook.", name)


def _fill_training_buffers(tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Give codebooks the buffers that only training reads, where a conversion left them out.

    A frozen codec never reads them. `inited` says that the codebook is not to be built anew from the first batch,
    so the values are true, too, for whoever would train it.
    """
    for name in expected:
        stem, _, leaf = name.rpartition(".")
        codebook = tensors.get(f"{stem}.embed")
        if leaf in TRAINING_BUFFERS and name not in tensors and codebook is not None and codebook.ndim == 2:
            tensors[name] = codebook if leaf == "embed_avg" else codebook.new_ones(expected[name].shape)


def _mismatch(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """Say in a few words what keeps `tensors` from being `expected`, or None where nothing does."""
    for name in FIRST_CONVOLUTION:
        if name in tensors and tensors[name].ndim == 3 and tensors[name].shape[1] == 2:
            return "it takes two channels, as the 48 kHz model does"
    if missing := sorted(expected.keys() - tensors.keys()):
        return f"{len(missing)} tensors are missing, such as {missing[0]}"
    if unknown := sorted(tensors.keys() - expected.keys()):
        return f"{len(unknown)} tensors are unknown, such as {unknown[0]}"
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            return f"{name} has shape {list(tensors[name].shape)}, not {list(tensor.shape)}"
    return None

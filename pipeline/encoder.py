"""The frozen codec at work on one device: windows in, latents out, the same bits however they come."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config import EncodeConfig
from shards.audio import Samples
from shards.codec import Codec
from shards.heap import keep_freed_memory


class Encoder:
    """A codec on a device, single-threaded on a CPU, in fixed batches of full precision on a GPU.

    A convolution may add in another order for another batch size. So a GPU's batches are always of one size, the
    last one filled with silence, and a CPU, which gains nothing from batches, takes one window at a time: what comes
    out for a window does not depend on the windows beside it.
    """

    def __init__(self, codec: Codec, device: Literal["cpu", "gpu"], batch_size: int) -> None:
        self.codec = codec
        self.device = device
        self._device = torch.device("cuda" if device == "gpu" else "cpu")
        self.batch_size = batch_size if device == "gpu" else 1
        if device == "gpu":
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.benchmark = False
            codec.to(self._device)

    def encode(self, windows: Sequence[Samples]) -> list[NDArray[np.float32]]:
        """Latents [D, T] of each of up to `batch_size` windows [n] of one length."""
        batch = np.zeros((self.batch_size, 1, len(windows[0])), np.float32)
        for row, window in zip(batch, windows, strict=False):
            row[0] = window
        latents = self.codec.encode(torch.from_numpy(batch).to(self._device)).cpu().numpy()
        return list(latents[: len(windows)])

    def quantize(self, latents: NDArray[np.float32]) -> NDArray[np.int16]:
        """Codes [codebooks, T] of latents [D, T]."""
        return self.codec.quantize(torch.from_numpy(latents)[None].to(self._device))[0].cpu().numpy()

    def dequantize(self, codes: NDArray[np.int16]) -> NDArray[np.float32]:
        """Latents [D, T] of codes [codebooks, T]."""
        return self.codec.dequantize(torch.from_numpy(codes)[None].to(self._device))[0].cpu().numpy()


def make_encoder(config: EncodeConfig, device: Literal["cpu", "gpu"]) -> Encoder:
    """Load the codec onto a device, in a process that does nothing else beside it.

    One thread on a CPU: actors are one a core, and another count of threads may round another way. Raises
    `CodecError` where the weights are missing or wrong.
    """
    keep_freed_memory()
    torch.set_num_threads(1)
    with suppress(RuntimeError):  # it may be set once only, before the first parallel work
        torch.set_num_interop_threads(1)
    return Encoder(config.codec.load(), device, config.encoder.batch_size)


def choose_device(config: EncodeConfig, gpus: Any) -> Literal["cpu", "gpu"]:
    """Where the codec runs: as configured, else on a GPU where there is one and the codec is a network."""
    if config.encoder.device != "auto":
        return config.encoder.device
    return "gpu" if gpus and config.codec.name == "encodec" else "cpu"

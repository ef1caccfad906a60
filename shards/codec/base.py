"""What a frozen codec is: audio to latents and back, with no parameter to train."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor

from shards.errors import CodecError
from shards.schema import CodecSpec


class Codec(ABC):
    """A frozen map between audio [B, 1, n] at `spec.sample_rate` and latents [B, D, T], T = ceil(n / hop).

    Deliberately not an `nn.Module`: as a plain object it can't become part of a model's parameters, of its
    checkpoints or of DDP, and an outer `.train()` never reaches it. Decoding is differentiable with respect
    to the latents.
    """

    spec: CodecSpec

    @abstractmethod
    def encode(self, audio: Tensor) -> Tensor:
        """Encode audio [B, 1, n] in [-1, 1] into latents [B, D, ceil(n / hop)], float32, without gradient.

        Raises `CodecError` for another shape or samples that are not finite.
        """

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents [B, D, T] into audio [B, 1, hop * T]."""

    @abstractmethod
    def decode_crop(self, latents: Tensor, start: int, stop: int) -> Tensor:
        """Decode frames [start, stop) of latents [B, D, T] exactly, as [B, 1, hop * (stop - start)].

        The result and its gradient equal those of the same samples of `decode(latents)`, at the price of the
        crop alone. Raises `CodecError` unless 0 <= start < stop <= T.
        """

    @property
    def quantized_spec(self) -> CodecSpec:
        """The spec of a dataset that stores codes of this codec. Raises `CodecError` where it has no quantizer."""
        raise self._no_quantizer()

    def quantize(self, latents: Tensor) -> Tensor:  # noqa: ARG002 - for the codecs that have a quantizer
        """Quantize latents [B, D, T] into codes [B, codebooks, T], int16.

        Raises `CodecError` for a codec without a quantizer, another shape, or values that are not finite.
        """
        raise self._no_quantizer()

    def dequantize(self, codes: Tensor) -> Tensor:  # noqa: ARG002
        """Look up the latents [B, D, T], float32, of codes [B, codebooks, T].

        Raises `CodecError` for a codec without a quantizer or another shape.
        """
        raise self._no_quantizer()

    def latents(self, stored: Tensor) -> Tensor:
        """Latents [B, D, T], float32, from what a dataset stores: latents of any precision, or codes."""
        return stored.float() if stored.is_floating_point() else self.dequantize(stored)

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """Move the codec's constants to `device` and return the codec itself."""

    def _no_quantizer(self) -> CodecError:
        return CodecError(
            f"{self.spec.name}: this codec has no quantizer, so it makes no codes; choose --latents float16, or "
            "--codec encodec"
        )

    def check_audio(self, audio: Tensor) -> None:
        """Raise `CodecError` unless `audio` is [B, 1, n] with n > 0 and finite.

        One bad sample would spoil every later frame of a causal codec, so it is looked for before encoding.
        """
        if audio.ndim != 3 or audio.shape[1] != 1 or audio.shape[2] == 0:
            raise CodecError(f"{self.spec.name}: audio has shape {list(audio.shape)}; it must be [B, 1, n]")
        if not bool(torch.isfinite(audio).all()):
            raise CodecError(f"{self.spec.name}: audio holds samples that are not finite; screen it first")

    def check_crop(self, latents: Tensor, start: int, stop: int) -> None:
        """Raise `CodecError` unless 0 <= start < stop <= T of latents [B, D, T]."""
        if latents.ndim != 3 or latents.shape[1] != self.spec.dim:
            raise CodecError(
                f"{self.spec.name}: latents have shape {list(latents.shape)}; they must be [B, {self.spec.dim}, T]"
            )
        if not 0 <= start < stop <= latents.shape[2]:
            raise CodecError(
                f"{self.spec.name}: frames {start}:{stop} lie outside the latents' {latents.shape[2]} frames"
            )

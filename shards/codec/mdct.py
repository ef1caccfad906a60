"""The embedded codec: a modified discrete cosine transform, which needs no weights."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from shards.codec.base import Codec
from shards.schema import CodecSpec

# An orthonormal transform keeps energy: music of RMS 0.1 below 4.8 kHz gives 128 of 320 bins of RMS
# 0.1 * sqrt(320 / 128) = 0.158. Times 36 that is 5.7, the RMS of EnCodec's latents, so one model's
# initialization and one set of loss weights suit both codecs.
LATENT_SCALE = 36.0
SPEC = CodecSpec(name="mdct", stage="transform")


class MdctCodec(Codec):
    """The lowest 128 of 320 bins (0 to 4.8 kHz) of an orthonormal MDCT with a sine window, times a constant.

    Frame t covers the samples [(t - 1) * 320, (t + 1) * 320), so the first half of frame 0 is silence and the
    last 320 samples, which only one frame covers, come back aliased and faded out by the window. All other
    samples of a band-limited sound come back exactly. Values and gradients are deterministic, and a crop equals
    the full decode bit for bit.

    Source: J. P. Princen and A. B. Bradley, "Analysis/Synthesis Filter Bank Design Based on Time Domain
    Aliasing Cancellation", IEEE Transactions on ASSP 34 (5), 1986.
    """

    def __init__(self) -> None:
        self.spec = SPEC
        hop, window = self.spec.hop, 2 * self.spec.hop
        samples = torch.arange(window, dtype=torch.float64)
        bins = torch.arange(self.spec.dim, dtype=torch.float64) + 0.5
        # cos(pi/hop * (n + 1/2 + hop/2) * (k + 1/2)) is the real part of a product of three phases: one of the
        # sample n, one of the bin k and one of a Fourier transform. A Fourier transform, unlike a matrix
        # product, rounds each frame alike however many stand beside it, so that crops are equal to the bit.
        sine = torch.sin(math.pi * (samples + 0.5) / window) * math.sqrt(2 / hop)
        self._sample_phase = torch.polar(sine, math.pi * samples / window).to(torch.complex64)
        phase_shift = math.pi / hop * (0.5 + hop / 2)
        self._bin_phase = torch.polar(torch.ones_like(bins), phase_shift * bins).to(torch.complex64)

    def encode(self, audio: Tensor) -> Tensor:
        """Encode audio [B, 1, n] in [-1, 1] into latents [B, 128, ceil(n / 320)], float32, without gradient.

        The audio is padded on the right with silence to whole frames. Raises `CodecError` for another shape or
        samples that are not finite.
        """
        self.check_audio(audio)
        hop = self.spec.hop
        with torch.no_grad():
            samples = audio[:, 0].float()
            samples = F.pad(samples, (hop, -samples.shape[1] % hop))
            frames = samples.unfold(1, 2 * hop, hop)
            spectrum = torch.fft.fft(frames * self._sample_phase.conj())[..., : self.spec.dim]
            coefficients: Tensor = (spectrum * self._bin_phase.conj()).real
            return (coefficients * LATENT_SCALE).transpose(1, 2).contiguous()

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents [B, 128, T] into audio [B, 1, 320 * T], differentiably.

        Raises `CodecError` for another shape.
        """
        self.check_crop(latents, 0, latents.shape[-1])
        return self._overlap_add(self._blocks(latents))

    def decode_crop(self, latents: Tensor, start: int, stop: int) -> Tensor:
        """Decode frames [start, stop) of latents [B, 128, T] into audio [B, 1, 320 * (stop - start)].

        Value and gradient are bit-equal to those of the same samples of `decode(latents)`. Raises `CodecError`
        unless 0 <= start < stop <= T.
        """
        self.check_crop(latents, start, stop)
        # The samples of a frame are complete only with the first half of the next frame, where there is one.
        blocks = self._blocks(latents[:, :, start : stop + 1])
        return self._overlap_add(blocks)[:, :, : (stop - start) * self.spec.hop]

    def to(self, device: torch.device | str) -> Self:
        """Move the transform's constants to `device` and return the codec itself."""
        self._sample_phase = self._sample_phase.to(device)
        self._bin_phase = self._bin_phase.to(device)
        return self

    def _blocks(self, latents: Tensor) -> Tensor:
        """Windowed samples [B, T, 640] of each frame of latents [B, 128, T]."""
        coefficients = latents.float().transpose(1, 2) / LATENT_SCALE
        # The inverse transform pads the missing upper bins with zeros: they hold nothing above 4.8 kHz.
        waves = torch.fft.ifft(coefficients * self._bin_phase, n=2 * self.spec.hop, norm="forward")
        samples: Tensor = (waves * self._sample_phase).real
        return samples

    def _overlap_add(self, blocks: Tensor) -> Tensor:
        """Add each block's second half to the next one's first half: [B, T, 640] to [B, 1, 320 * T]."""
        hop = self.spec.hop
        following = F.pad(blocks[:, 1:, :hop], (0, 0, 0, 1))
        return (blocks[:, :, hop:] + following).flatten(1).unsqueeze(1)

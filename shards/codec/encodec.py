"""The real codec: EnCodec at 24 kHz, its continuous latents before the quantizer. The one door to `encodec`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Self, cast

import encodec.model
import torch
from torch import Tensor, nn

from shards.codec.base import Codec
from shards.codec.weights import Weights, fit_to, read_weights
from shards.errors import CodecError
from shards.schema import CODEBOOK_SIZE, CodecSpec

BANDWIDTH_KBPS = 6.0
SPEC = CodecSpec(name="encodec", stage="pre_quantizer", bandwidth=BANDWIDTH_KBPS)
"""Of the codec without its weights."""
# The decoder's first convolution, of kernel 7, pads its left by reflection: it needs the first 7 frames even
# where the crop ends before them.
REFLECTED_FRAMES = 7
# Behind its LSTM the decoder looks back 1.5 frames: one frame for each frame-wide transposed convolution and
# ever less for each one after it, and for the reflection that a window's own left edge starts with.
CONTEXT_FRAMES = 2


class EncodecCodec(Codec):
    """EnCodec's encoder and decoder at 24 kHz, frozen, in full precision.

    Latents are what the encoder hands to the quantizer: RMS about 5.7, range about [-30, 30], 75 frames a second.
    The bandwidth concerns the quantizer alone. Both directions run in float32 also under autocast: bfloat16
    costs 30 dB. The encoder is causal, and silence does not encode to zero.

    Source: A. Defossez, J. Copet, G. Synnaeve and Y. Adi, "High Fidelity Neural Audio Compression",
    arXiv:2210.13438, 2022.
    """

    def __init__(self, model: encodec.model.EncodecModel, weights_sha256: str) -> None:
        """Take over `model` and freeze it; `load` is the way to make one from a file."""
        self.spec = SPEC.model_copy(update={"weights_sha256": weights_sha256})
        self._model = _freeze(model)
        layers = cast(nn.Sequential, model.decoder.model)
        self._decoder_head, self._decoder_tail = layers[:2], layers[2:]

    @classmethod
    def load(cls, weights: Path | str | None = None, *, allow_unknown_weights: bool = False) -> Self:
        """Load from the file `weights`, else from the torch hub cache, else by a download into that cache.

        The file is `encodec_24khz-d7cc33bc.th`, or a safetensors file in Hugging Face naming. One with an unknown
        SHA-256 is refused unless `allow_unknown_weights`; `spec.weights_sha256` records the hash. Leaves the
        global random state as it was. Raises `CodecError` for weights that are missing, unknown, damaged or
        another model's.
        """
        # The address as the package knows it at this moment, not at import, so that a mirror can be set.
        found = read_weights(weights, encodec.model.ROOT_URL, allow_unknown=allow_unknown_weights)
        return cls(_build(found), found.sha256)

    def encode(self, audio: Tensor) -> Tensor:
        """Encode audio [B, 1, n] in [-1, 1] into latents [B, 128, ceil(n / 320)], float32, without gradient.

        The package pads an incomplete last frame itself. Raises `CodecError` for another shape or samples that
        are not finite.
        """
        self.check_audio(audio)
        with torch.no_grad(), torch.autocast(audio.device.type, enabled=False):
            return cast(Tensor, self._model.encoder(audio.float()))

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents [B, 128, T] into audio [B, 1, 320 * T], differentiably.

        Raises `CodecError` for another shape.
        """
        self.check_crop(latents, 0, latents.shape[-1])
        with torch.autocast(latents.device.type, enabled=False):
            return cast(Tensor, self._model.decoder(latents.float()))

    def decode_crop(self, latents: Tensor, start: int, stop: int) -> Tensor:
        """Decode frames [start, stop) of latents [B, 128, T] into audio [B, 1, 320 * (stop - start)].

        Takes the same sums as `decode`, so value and gradient are equal to the bit wherever the convolution
        kernels add in an order that does not depend on the length. oneDNN's transposed convolutions on AVX2 do
        depend on it: there the value is off by 1e-6 and the gradient by 2e-5 of their RMS. Raises `CodecError`
        unless 0 <= start < stop <= T.
        """
        self.check_crop(latents, start, stop)
        with torch.autocast(latents.device.type, enabled=False):
            seen = latents[:, :, : max(stop, REFLECTED_FRAMES)].float()
            first = max(start - CONTEXT_FRAMES, 0)
            audio = cast(Tensor, self._decoder_tail(self._decoder_head(seen)[:, :, first:stop]))
            return audio[:, :, (start - first) * self.spec.hop :]

    @property
    def quantized_spec(self) -> CodecSpec:
        """The spec of a dataset that stores codes of this codec."""
        return self.spec.model_copy(update={"stage": "quantized"})

    @torch.no_grad()
    def quantize(self, latents: Tensor) -> Tensor:
        """Quantize latents [B, 128, T] into codes [B, 8, T], int16 in [0, 1024): EnCodec at 6 kbit/s.

        Each codebook codes what those before it left over. Raises `CodecError` for another shape or values that
        are not finite.
        """
        self.check_crop(latents, 0, latents.shape[-1])
        if not bool(torch.isfinite(latents).all()):
            raise CodecError("encodec: latents hold values that are not finite; they have no codes")
        with torch.autocast(latents.device.type, enabled=False):
            codes: Tensor = self._model.quantizer.vq.encode(latents.float(), self.spec.codebooks)
        return codes.transpose(0, 1).to(torch.int16)

    @torch.no_grad()
    def dequantize(self, codes: Tensor) -> Tensor:
        """Look up the latents [B, 128, T], float32, of codes [B, 8, T] of any integer type.

        Raises `CodecError` for another shape or type, and, where looking costs no waiting for a device, for codes
        outside [0, 1024).
        """
        books = self.spec.codebooks
        if codes.ndim != 3 or codes.shape[1] != books or codes.is_floating_point():
            raise CodecError(
                f"encodec: codes are {codes.dtype} {list(codes.shape)}; they must be integers [B, {books}, T]"
            )
        if (
            codes.device.type == "cpu"
            and codes.numel()
            and not 0 <= int(codes.min()) <= int(codes.max()) < CODEBOOK_SIZE
        ):
            raise CodecError(f"encodec: codes lie outside [0, {CODEBOOK_SIZE}); verify the shards they come from")
        with torch.autocast(codes.device.type, enabled=False):
            return cast(Tensor, self._model.quantizer.decode(codes.transpose(0, 1).long()))

    def to(self, device: torch.device | str) -> Self:
        """Move the weights to `device` and return the codec itself."""
        self._model.to(device)
        return self

    def modules(self) -> Iterator[nn.Module]:
        """Iterate over the network's modules, to look at their modes and parameters."""
        yield from self._model.modules()


def _build(weights: Weights) -> encodec.model.EncodecModel:
    """Build the 24 kHz model and fill it with `weights`."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # The package still uses torch's older weight norm, which says so once per layer.
        warnings.simplefilter("ignore", FutureWarning)
        model = cast(encodec.model.EncodecModel, encodec.model.EncodecModel.encodec_model_24khz(pretrained=False))
    model.load_state_dict(fit_to(weights, model.state_dict()), strict=True)
    model.set_target_bandwidth(BANDWIDTH_KBPS)
    return model


def _freeze(model: encodec.model.EncodecModel) -> encodec.model.EncodecModel:
    """Fold the weight norm, and leave no parameter that learns."""
    for module in model.modules():
        if hasattr(module, "weight_g"):
            # The weights are fixed, so their norm is, too: once is enough.
            nn.utils.remove_weight_norm(module)
    model.requires_grad_(False)
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.LSTM):
            # cuDNN computes no gradient through an LSTM in eval mode. Without dropout the output is the same.
            module.train()
    return model

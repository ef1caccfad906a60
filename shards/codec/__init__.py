"""The frozen codecs, behind one door: `load_codec`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from shards.codec.base import Codec
from shards.dataset import describe_codec
from shards.errors import CodecError, MisuseError
from shards.schema import CodecSpec

CODEC_NAMES = ("encodec", "mdct")

__all__ = ["CODEC_NAMES", "Codec", "codec_spec", "load_codec", "load_matching_codec"]


def load_codec(name: str, weights: Path | str | None = None, *, allow_unknown_weights: bool = False) -> Codec:
    """Load the codec `name` (`encodec` or `mdct`), frozen and on the CPU.

    `weights` is EnCodec's weights file; without it the torch hub cache is tried, then a download. Weights with
    an unknown hash are refused unless `allow_unknown_weights`. Raises `CodecError` where the weights are missing
    or wrong and `MisuseError` for an unknown name.
    """
    match name:
        case "mdct":
            from shards.codec.mdct import MdctCodec

            return MdctCodec()
        case "encodec":
            # Here and not above: the package pulls in torchaudio, which the embedded codec does not need.
            from shards.codec.encodec import EncodecCodec

            return EncodecCodec.load(weights, allow_unknown_weights=allow_unknown_weights)
        case _:
            raise MisuseError(f"unknown codec {name!r}; choose one of: {', '.join(CODEC_NAMES)}")


def codec_spec(name: Literal["encodec", "mdct"]) -> CodecSpec:
    """Describe a codec without loading it, and so without the hash of its weights."""
    if name == "mdct":
        from shards.codec.mdct import SPEC
    else:
        from shards.codec.encodec import SPEC
    return SPEC


def load_matching_codec(spec: CodecSpec, weights: str | Path | None, owner: str) -> Codec:
    """Load the codec that `owner`, a dataset or checkpoint, was made with.

    Raises `CodecError` where its weights are missing or others.
    """
    # Unknown weights are taken here: the owner names the ones it was made with, and these are compared.
    codec = load_codec(spec.name, weights, allow_unknown_weights=True)
    own = codec.quantized_spec if spec.stage == "quantized" else codec.spec
    if own != spec:
        raise CodecError(
            f"{owner}: was made with {describe_codec(spec)}, the codec found here is {describe_codec(own)}; "
            "give the same weights with --codec-weights"
        )
    return codec

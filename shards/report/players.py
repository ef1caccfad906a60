"""Latents to sound for a page: 16-bit mono FLAC, each short enough that the page stays easy to send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.audio import encode_flac
from shards.schema import CodecSpec

PLAYER_BYTES = 370_000
"""Of one player's file; eight pairs of them, written as base64, stay under 8 MB."""

Decode = Callable[[NDArray[Any]], NDArray[np.float32]]
"""Latents [D, T], or codes, to mono samples [n] at the codec's sample rate."""


@dataclass(frozen=True)
class Player:
    """A sound for the page; `seconds` is less than `whole_seconds` where it had to be cut."""

    flac: bytes
    seconds: float
    whole_seconds: float

    @property
    def cut(self) -> bool:
        """Whether only the beginning is there."""
        return self.seconds < self.whole_seconds


def load_decoder(codec: CodecSpec, weights: Path | None, owner: str) -> Decode:
    """Load a dataset's codec. Raises `CodecError` where it can't be had, or its weights are not the dataset's."""
    # Here and not above: a page without sounds needs no torch.
    import torch

    from shards.codec import load_matching_codec

    loaded = load_matching_codec(codec, weights, owner)

    def decode(stored: NDArray[Any]) -> NDArray[np.float32]:
        values = np.nan_to_num(stored, nan=0.0, posinf=0.0, neginf=0.0)
        with torch.no_grad():
            audio: NDArray[np.float32] = loaded.decode(loaded.latents(torch.from_numpy(values)[None]))[0, 0].numpy()
        return audio

    return decode


def make_player(samples: NDArray[np.float32], sample_rate: int) -> Player:
    """Make mono samples [n] into a player, cut to what `PLAYER_BYTES` holds."""
    whole = len(samples)
    kept = np.clip(samples, -1.0, 1.0)
    flac = encode_flac(kept, sample_rate)
    while len(flac) > PLAYER_BYTES and len(kept) > sample_rate:
        # Down to a whole second: how well the beginning packs is only known once it is packed.
        length = int(0.98 * len(kept) * PLAYER_BYTES / len(flac))
        kept = kept[: max(length // sample_rate, 1) * sample_rate]
        flac = encode_flac(kept, sample_rate)
    return Player(flac, len(kept) / sample_rate, whole / sample_rate)

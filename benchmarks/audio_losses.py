"""Value and gradient of an audio loss on an exact 2 s crop, against the full 16 s decode.

Latents [1, 128, 1200] in float32, the RMS loss. The crop lies in the middle of the window. EnCodec has its own
architecture with seeded weights: time and memory do not depend on their values. Each memory figure comes from a
process of its own: the peak during one value and gradient, above what was in use before.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.memory import growth_mb, in_own_process
from benchmarks.timing import compare, measure, report, use_one_thread, wants_json
from benchmarks.weights import seeded_weights
from shards.codec import CODEC_NAMES, Codec, load_codec
from training.losses import rms_error

FRAMES, CROP_FRAMES = 1200, 150
START = (FRAMES - CROP_FRAMES) // 2
WAYS = {"full 16 s": (0, FRAMES), "crop 2 s": (START, START + CROP_FRAMES)}
BASELINE = "full 16 s"


def main() -> None:
    as_json = wants_json(__doc__ or "")
    use_one_thread()
    rows: list[dict[str, Any]] = []
    for name in CODEC_NAMES:
        codec = seeded_codec(name)
        own = compare(measure({way: partial(value_and_gradient, codec, way) for way in WAYS}), BASELINE)
        peaks = {way: in_own_process(peak_of, name, way) for way in WAYS}
        for row in own:
            way = row["name"]
            row |= {"name": f"{name}, {way}", "peak_mb": peaks[way], "memory_ratio": _memory_ratio(peaks, way)}
        rows += own
    report("RMS loss: value and gradient, batch 1", f"{BASELINE} of the same codec", rows, as_json=as_json)


def value_and_gradient(codec: Codec, way: str) -> Tensor:
    """Decode differentiably, compare with other audio, and go back to the latents."""
    start, stop = WAYS[way]
    noise = torch.Generator().manual_seed(0)
    latents = (5.7 * torch.randn(1, codec.spec.dim, FRAMES, generator=noise)).requires_grad_()
    other = 0.1 * torch.randn(1, 1, (stop - start) * codec.spec.hop, generator=noise)
    decoded = codec.decode(latents) if way == BASELINE else codec.decode_crop(latents, start, stop)
    torch.autograd.backward(rms_error(decoded, other))
    assert latents.grad is not None
    return latents.grad


def seeded_codec(name: str) -> Codec:
    """Load a codec; EnCodec with random weights, so that nothing is downloaded."""
    if name != "encodec":
        return load_codec(name)
    with tempfile.TemporaryDirectory() as folder:
        return load_codec(name, seeded_weights(Path(folder)), allow_unknown_weights=True)


def peak_of(name: str, way: str) -> float | None:
    """Compute once in this process and tell by how many MB its memory grew."""
    use_one_thread()
    codec = seeded_codec(name)
    # Once on a few frames: what libraries set up at their first use is not the decode's memory.
    torch.autograd.backward(codec.decode_crop(torch.zeros(1, codec.spec.dim, 8, requires_grad=True), 0, 8).sum())
    return growth_mb(partial(value_and_gradient, codec, way))


def _memory_ratio(peaks: dict[str, float | None], way: str) -> float | None:
    full, own = peaks[BASELINE], peaks[way]
    return full / own if full and own else None


if __name__ == "__main__":
    main()

"""Value and gradient of an audio loss on an exact 2 s crop, against the full 16 s decode.

Latents [1, 128, 1200] in float32, the RMS loss. The crop lies in the middle of the window. EnCodec has its own
architecture with seeded weights: time and memory do not depend on their values. Each memory figure comes from a
process of its own: the peak during one value and gradient, above what was in use before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import compare, measure, report, use_one_thread, wants_json
from benchmarks.weights import seeded_weights
from shards.codec import CODEC_NAMES, Codec, load_codec
from training.losses import rms_error

FRAMES, CROP_FRAMES = 1200, 150
START = (FRAMES - CROP_FRAMES) // 2
WAYS = {"full 16 s": (0, FRAMES), "crop 2 s": (START, START + CROP_FRAMES)}
BASELINE = "full 16 s"
MEMORY = "--memory-of"


def main() -> None:
    as_json = wants_json(__doc__ or "")
    use_one_thread()
    rows: list[dict[str, Any]] = []
    for name in CODEC_NAMES:
        codec = seeded_codec(name)
        own = compare(measure({way: partial(value_and_gradient, codec, way) for way in WAYS}), BASELINE)
        peaks = {way: peak_of_process(name, way) for way in WAYS}
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


def peak_of_process(codec: str, way: str) -> float | None:
    """Measure the peak memory of one value and gradient in MB; None where the system does not tell."""
    command = [sys.executable, "-m", "benchmarks.audio_losses", MEMORY, codec, way]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak: float | None = json.loads(done.stdout)
    return peak


def measure_memory(name: str, way: str) -> float | None:
    """Reset this process's peak (Linux only), compute once, and tell the growth in MB."""
    status = Path("/proc/self/status")
    use_one_thread()
    codec = seeded_codec(name)
    # Once on a few frames: what libraries set up at their first use is not the decode's memory.
    torch.autograd.backward(codec.decode_crop(torch.zeros(1, codec.spec.dim, 8, requires_grad=True), 0, 8).sum())
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _kilobytes(status, "VmRSS")
        value_and_gradient(codec, way)
        return (_kilobytes(status, "VmHWM") - before) * 1024 / 1e6
    except OSError:
        return None


def _kilobytes(status: Path, key: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(key))


def _memory_ratio(peaks: dict[str, float | None], way: str) -> float | None:
    full, own = peaks[BASELINE], peaks[way]
    return full / own if full and own else None


if __name__ == "__main__":
    if sys.argv[1:2] == [MEMORY]:
        print(json.dumps(measure_memory(sys.argv[2], sys.argv[3])))
    else:
        main()

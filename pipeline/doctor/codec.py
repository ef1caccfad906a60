"""The codec on this machine: its weights, what it makes of a test sound, and how fast."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.doctor.case import Case
from pipeline.doctor.finding import Number, Verdict, failed, ok, warning
from pipeline.synthesize import SAMPLE_RATE
from shards.codec.weights import WEIGHTS_SHA256, weights_path
from shards.latents import snr_db

USUAL_RMS = (1.0, 30.0)
"""Of latents of music at a usual level: 5.7 for EnCodec's own weights, and for `mdct`."""
LEAST_SNR_DB = 20.0
"""Of the test sound through `mdct`: a healthy machine gives 41 dB over 16 s."""
BATCH = 4
LARGEST_DIFFERENCE = 1e-3
"""Between ways to encode the same window. Measured 6e-6 between batches on a CPU; latents have an RMS of 5.7."""
LARGEST_GPU_DIFFERENCE = 1e-2
"""Between a GPU and a CPU, both in full precision; TF32 or bfloat16 would be far beyond it."""
OWN_CORE, BUSY_CORES = 0.9, 1.5
"""Cores at work while one window is encoded: fewer, and other programs took the rest; more, and there are threads."""
PINNED = "install the versions that constraints.txt pins"


def weights(case: Case) -> Verdict:
    """Load the codec as a job does; missing weights are fetched as a job fetches them."""
    codec = case.encoder.codec
    if case.config.output.latents == "codes":
        _ = codec.quantized_spec  # raises where it has no quantizer
    found = codec.spec.weights_sha256
    if found is None:
        return ok(f"{codec.spec.name} has none and needs none")
    path = weights_path(case.config.codec.weights)
    size = path.stat().st_size
    value = f"{path}: {size / 1e6:.1f} MB, SHA-256 {found[:16]}"
    measured: dict[str, Number] = {"path": str(path), "bytes": size, "sha256": found, "known": found == WEIGHTS_SHA256}
    if found == WEIGHTS_SHA256:
        return ok(f"{value}, known", **measured)
    mend = "keep this very file with the dataset: training and listening need it"
    return warning(f"{value}, unknown and allowed", mend, **measured)


def round_trip(case: Case) -> Verdict:
    """Encode and decode the test sound: lengths, finite values, level, and how like the source it comes back."""
    codec, latents, sound = case.encoder.codec, case.trial.latents[0], case.sound
    with torch.inference_mode():
        audio = codec.decode(torch.from_numpy(latents)[None])[0, 0].numpy()
    frames = codec.spec.frames(len(sound))
    level = float(np.sqrt(np.mean(np.square(latents, dtype=np.float64))))
    measured: dict[str, Number] = {"samples": len(sound), "frames": latents.shape[1], "latents_rms": round(level, 4)}
    value = f"{len(sound) / SAMPLE_RATE:g} s to {latents.shape[1]} frames of RMS {level:.2f} and back"
    if latents.shape != (codec.spec.dim, frames) or len(audio) != frames * codec.spec.hop:
        shapes = f"{list(latents.shape)} and {len(audio)} samples"
        return failed(f"{len(sound)} samples came to {shapes}, not {frames} frames", PINNED, **measured)
    if not (np.isfinite(latents).all() and np.isfinite(audio).all()):
        return failed(f"{value}: values that are not finite", PINNED, **measured)
    if codec.spec.name == "mdct":
        heard = len(sound) - codec.spec.hop  # the last frame is faded out
        snr = snr_db(sound[:heard], audio[:heard])
        value, measured = f"{value}, {snr:.1f} dB", {**measured, "snr_db": round(snr, 2)}
        if snr < LEAST_SNR_DB:
            return failed(value, PINNED, **measured)
    if not USUAL_RMS[0] <= level <= USUAL_RMS[1]:
        mend = "look whether these weights are the ones that you mean: latents of music have an RMS of about 5.7"
        return warning(value, mend, **measured)
    return ok(value, **measured)


def batches(case: Case) -> Verdict:
    """Hold windows encoded together against the same windows encoded alone."""
    length = min(len(case.sound) // BATCH, 2 * SAMPLE_RATE)
    windows = torch.from_numpy(case.sound[: BATCH * length].reshape(BATCH, 1, length))
    codec = case.encoder.codec
    together = codec.encode(windows)
    alone = torch.cat([codec.encode(window[None]) for window in windows])
    largest = float((together - alone).abs().max())
    value = f"up to {largest:.2g} between a batch of {BATCH} and single windows"
    if largest <= LARGEST_DIFFERENCE:
        return ok(value, difference=largest)
    return warning(value, f"{PINNED}: at most {LARGEST_DIFFERENCE:g} is usual", difference=largest)


def determinism(case: Case) -> Verdict:
    """Encode the same window several times: the bits must be the same."""
    first, *others = case.trial.latents
    if all(np.array_equal(first, other) for other in others):
        return ok(f"{len(case.trial.latents)} times the same bits", runs=len(case.trial.latents))
    largest = max(float(np.abs(first - other).max()) for other in others)
    return failed(f"the same window came out differently, by up to {largest:.2g}", PINNED, difference=largest)


def threads(case: Case) -> Verdict:
    """See that encoding keeps one core busy and no more: there is an actor on every core."""
    count, busy = torch.get_num_threads(), case.trial.busy
    value = f"{count} a process, {busy:.2f} cores busy while encoding"
    if count == 1 and busy < BUSY_CORES:
        return ok(value, threads=count, busy_cores=round(busy, 2))
    return warning(value, "set OMP_NUM_THREADS=1 and MKL_NUM_THREADS=1", threads=count, busy_cores=round(busy, 2))


def speed(case: Case) -> Verdict:
    """Time the encoder on one thread."""
    seconds, length = case.trial.seconds, len(case.sound) / SAMPLE_RATE
    value = f"{seconds:.3g} s for a window of {length:g} s on one thread, {length / seconds:.0f}x real time"
    value += "; the core was shared with other programs" if case.trial.busy < OWN_CORE else ""
    return ok(value, seconds_per_window=seconds, window_seconds=length, real_time=round(length / seconds, 1))


def gpu(case: Case) -> Verdict:
    """Name the GPUs that torch sees."""
    if not torch.cuda.is_available():
        if case.config.encoder.device == "gpu" and not case.joins_cluster:
            return failed("torch sees none", "install the driver of the GPU, or choose --device cpu", count=0)
        return ok("none", count=0)
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    names = ", ".join(f"{one.name} ({one.total_memory / 2**30:.0f} GiB)" for one in found)
    return ok(names, count=len(found), names=names, bytes=min(one.total_memory for one in found))


def gpu_speed(case: Case) -> Verdict:
    """Say how fast a GPU encodes for several batch sizes, and hold its latents against the CPU's."""
    trial = case.gpu_trial
    if not trial.speeds:
        return failed("not even one window fits into its memory", "end what else runs on it, or choose --device cpu")
    difference = float(np.abs(trial.latents - case.trial.latents[0]).max())
    table = ", ".join(f"{size}: {rate:.1f}" for size, rate in trial.speeds.items())
    value = f"windows a second by batch size {table}; best: --set encoder.batch_size={trial.best}"
    value += f"; differs from the CPU by up to {difference:.2g}"
    measured: dict[str, Number] = {f"windows_per_second_{size}": rate for size, rate in trial.speeds.items()}
    measured |= {"best_batch_size": trial.best, "difference_to_cpu": difference}
    if difference > LARGEST_GPU_DIFFERENCE:
        return warning(value, f"{PINNED}, or choose --device cpu", **measured)
    return ok(value, **measured)

"""The job that is meant for the machine: its pairs, its sources, the time it takes, and the room for its dataset."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from pipeline.destination import open_destination
from pipeline.doctor.case import Case
from pipeline.doctor.finding import Number, Verdict, failed, ok, warning
from pipeline.encoder import choose_device
from pipeline.space import bytes_under, dataset_bytes, free_bytes, nearest_folder
from shards.manifest import partial_folder
from shards.schema import SideName
from shards.store import is_url

SOURCES_LOOKED_AT = 300
PROBE = ".doctor"
"""Name of the object that is written to a URL, and deleted, to see whether it can be."""


def pairs(case: Case) -> Verdict:
    """Read the pairs file and count what is in it."""
    header, found = case.pairs.header, case.pairs.pairs
    windows = len({cut for pair in found for _, cut in pair.sides})
    seconds = header.window_samples / header.sample_rate
    files = len(_sources(case))
    hours = windows * seconds / 3600
    value = f"{len(found)} pairs of {windows} windows of {seconds:g} s ({hours:.2f} h) from {files} files"
    return ok(value, pairs=len(found), windows=windows, window_seconds=seconds, hours=hours, files=files)


def sources(case: Case) -> Verdict:
    """Look whether the sources lie on this machine; of many, at some that are spread evenly."""
    root, names = Path(case.pairs.header.root), _sources(case)
    step = max(1, len(names) // SOURCES_LOOKED_AT)
    looked_at = names[::step]
    missing = [name for name in looked_at if not (root / name).is_file()]
    value = f"{len(looked_at) - len(missing)} of {len(looked_at)} looked at are under {root}"
    measured: dict[str, Number] = {"looked_at": len(looked_at), "missing": len(missing), "root": str(root)}
    if not missing:
        return ok(value, **measured)
    value, mend = f"{value}, {missing[0]} is not", f"mount {root} here as it was at pairing, or pair again"
    if len(missing) > case.config.max_reject_fraction * len(looked_at):
        return failed(value, mend, **measured)
    return warning(value, mend, **measured)


def duration(case: Case) -> Verdict:
    """Estimate how long the codec works on the plan with this machine's cores or GPUs; decoding goes on beside it."""
    seconds = case.pairs.header.window_samples / case.pairs.header.sample_rate
    windows = sum(len({cut for pair in plan.pairs for _, cut in pair.sides}) for plan in case.plans)
    longer = case.pairs.header.window_samples / len(case.sound)
    if choose_device(case.config, torch.cuda.is_available()) == "gpu" and torch.cuda.is_available():
        trial = case.gpu_trial
        rate = trial.speeds.get(case.config.encoder.batch_size, trial.speeds[trial.best])
        at_work, what, each = torch.cuda.device_count() if case.with_ray else 1, "GPUs", longer / rate
    else:
        at_work, what, each = case.actors, "cores", longer * case.trial.seconds
    at_work = min(at_work, len(case.plans))
    hours = windows * each / at_work / 3600
    value = f"{hours:.2g} h for {windows} windows of {seconds:g} s in {len(case.plans)} shards on {at_work} {what}"
    return ok(value, hours=hours, windows=windows, shards=len(case.plans), at_work=at_work)


def space(case: Case) -> Verdict:
    """Hold the size of the planned dataset against the room for it; only what FLAC takes is a guess."""
    count, sides = len(case.pairs.pairs), case.config.output.audio_sides
    size = _size(case, count, sides)
    value = f"the dataset takes {_gigabytes(size)}"
    if case.out is None:
        return ok(f"{value}; name --out to compare it with its disk", dataset_bytes=size)
    if is_url(case.out):
        # Each encoder holds one shard on this machine's disk before it travels.
        place, there = Path(tempfile.gettempdir()), 0
        count = min(count, case.actors * case.config.output.samples_per_shard)
        mend = "make room there, set TMPDIR to a larger disk, or --set output.samples_per_shard to fewer"
    else:
        place = Path(case.out)
        there = bytes_under(partial_folder(place.absolute()))
        mend = "make room, choose another --out, or store less (--latents)"
    needed, without_flac = (max(0, _size(case, count, some) - there) for some in (sides, ()))
    free = free_bytes(place)
    value += f", {_gigabytes(needed)} of it at once or still to come" if needed < size else ""
    value += f"; {_gigabytes(free)} are free at {nearest_folder(place)}"
    measured: dict[str, Number] = {"dataset_bytes": size, "needed_bytes": needed, "free_bytes": free}
    if needed <= free:
        return ok(value, **measured)
    return (failed if without_flac > free else warning)(value, mend, **measured)


def writable(case: Case) -> Verdict:
    """Write something where the dataset is to be, and take it away again."""
    assert case.out is not None
    if is_url(case.out):
        destination = open_destination(case.out)
        destination.write(PROBE, b"")  # raises in one line
        destination.remove([PROBE])
        return ok(f"{case.out} can be written to")
    folder = nearest_folder(Path(case.out))
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        return failed(f"{folder}: {error.strerror}", "get the right to write there, or choose another --out")
    return ok(f"{folder} can be written to")


def _size(case: Case, pairs: int, audio: tuple[SideName, ...]) -> int:
    output, window = case.config.output, case.pairs.header.window_samples
    return dataset_bytes(pairs, case.spec, output.latents, window, audio, output.samples_per_shard)


def _sources(case: Case) -> list[str]:
    return sorted({cut.path for pair in case.pairs.pairs for _, cut in pair.sides})


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 10**8 else f"{size / 1e6:.3g} MB"

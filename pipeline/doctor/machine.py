"""The machine without the codec: versions, memory, the Ray cluster."""

from __future__ import annotations

import platform
from pathlib import Path

from pipeline.doctor.case import Case
from pipeline.doctor.finding import Verdict, failed, ok, skipped, warning
from pipeline.job import try_ray
from shards.audio import LIBSNDFILE_VERSION
from shards.build import make_build

ACTOR_BYTES = 1_600_000_000
"""Of one encoder with EnCodec on a CPU at its peak, on windows of 16 s."""
INSTALL = "install the project: pip install -c constraints.txt -e '.[ray]'"


def versions(case: Case) -> Verdict:
    """List what the job runs on."""
    needed = ["numpy", "torch", "soundfile", "soxr"]
    needed += ["torchaudio", "encodec"] * (case.config.codec.name == "encodec") + ["ray"] * case.with_ray
    found = {"python": platform.python_version(), **make_build(needed, {}).versions, "libsndfile": LIBSNDFILE_VERSION}
    value = ", ".join(f"{name} {version}" for name, version in found.items())
    if "not installed" in found.values():
        return failed(value, INSTALL, **found)
    if _release(found["torch"]) != _release(found.get("torchaudio", found["torch"])):
        return warning(value, "install torch and torchaudio of the same release", **found)
    return ok(value, **found)


def memory(case: Case) -> Verdict:
    """Hold the memory that is left against what the encoders of this machine take."""
    available = available_memory()
    fitting = available // ACTOR_BYTES
    value = f"{available / 1e9:.1f} GB for {case.actors} encoders of {ACTOR_BYTES / 1e9:g} GB"
    measured = {"available_bytes": available, "actors": case.actors, "actors_that_fit": fitting}
    if fitting >= case.actors:
        return ok(value, **measured)
    if fitting == 0:
        return failed(value, "end other programs, or take a larger machine", **measured)
    return warning(value, f"have fewer encoders: --set encoder.max_actors={fitting}", **measured)


def ray(case: Case) -> Verdict:
    """Join the cluster, or start a private one, and let an actor import the pipeline and load the codec."""
    if not case.with_ray:
        return skipped("not wanted (--no-ray)")
    try:
        reach = try_ray(case.config)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        return failed(" ".join(str(error).split()), "look at RAY_ADDRESS, or encode with --local")
    value = f"{reach.cpus} CPUs, {reach.gpus} GPUs, room for {reach.actors} encoders on {reach.device}"
    value += f"; one was ready after {reach.seconds:.1f} s"
    return ok(value, **reach._asdict())


def available_memory(processes: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take: of the machine, and of the control groups that it is in."""
    left = [1024 * _field(processes / "meminfo", "MemAvailable:")]
    for line in (processes / "self" / "cgroup").read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            root, limit, usage, cache = groups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, usage = groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        own = root / name.lstrip("/")
        for group in (own, *own.parents):
            if not group.is_relative_to(root) or not (group / limit).is_file():
                continue
            most = (group / limit).read_text().strip()
            if most != "max":
                used = int((group / usage).read_text()) - _field(group / "memory.stat", cache)
                left.append(max(int(most) - used, 0))
    return min(left)


def _field(path: Path, name: str) -> int:
    """Read the number that follows a name in a file of names and numbers."""
    lines = (line.split() for line in path.read_text().splitlines())
    return next((int(words[1]) for words in lines if words and words[0] == name), 0)


def _release(version: str) -> list[str]:
    return version.split(".")[:2]

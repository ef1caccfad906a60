"""How much memory a process holds at most, and processes of their own to find out in."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

STATUS = "/proc/self/status"


def own_process() -> ProcessPoolExecutor:
    """Start a fresh process that does what is submitted to it, one after the other."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def in_own_process(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do one thing in a fresh process."""
    with own_process() as process:
        return process.submit(work, *args, **kwargs).result()


def peak_mb() -> float:
    """Peak resident memory of this program in MB (Linux); unlike `getrusage`, not that of the one that started it."""
    return _megabytes(STATUS, "VmHWM:")


def growth_mb(work: Callable[[], object]) -> float | None:
    """Work, and tell by how many MB memory grew at most meanwhile; None where the system does not tell (Linux does)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _megabytes(STATUS, "VmRSS:")
    except OSError:
        work()
        return None
    work()
    return peak_mb() - before


def free_mb() -> float:
    """Memory that programs can still get without driving others out, in MB (Linux)."""
    return _megabytes("/proc/meminfo", "MemAvailable:")


def hold_at_most(megabytes: float) -> None:
    """Let this process fail where it asks for more than that in all."""
    most = int(megabytes * 1e6)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _megabytes(file: str, key: str) -> float:
    line = next(line for line in Path(file).read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024 / 1e6

"""The checkup: which checks there are, in which order, and what each one needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from pipeline.doctor import codec, machine, work
from pipeline.doctor.case import Case
from pipeline.doctor.finding import Finding, Verdict, failed, skipped
from shards.errors import CascadenceError


@dataclass(frozen=True)
class Check:
    """A check, the checks that must not have failed before it, and the cases that it is for."""

    name: str
    judge: Callable[[Case], Verdict]
    needs: tuple[str, ...] = ()
    applies: Callable[[Case], bool] = lambda _: True


def _with_pairs(case: Case) -> bool:
    return case.pairs_file is not None


def _with_gpu(_: Case) -> bool:
    return torch.cuda.is_available()


def _with_out(case: Case) -> bool:
    return case.out is not None


CHECKS = (
    Check("versions", machine.versions),
    # Before the codec: its test sound is as long as the windows.
    Check("pairs", work.pairs, applies=_with_pairs),
    Check("sources", work.sources, ("pairs",), _with_pairs),
    Check("codec weights", codec.weights),
    Check("round trip", codec.round_trip, ("codec weights",)),
    Check("batches", codec.batches, ("codec weights",)),
    Check("determinism", codec.determinism, ("codec weights",)),
    Check("threads", codec.threads, ("codec weights",)),
    Check("speed", codec.speed, ("codec weights",)),
    Check("gpu", codec.gpu),
    Check("gpu speed", codec.gpu_speed, ("codec weights",), _with_gpu),
    Check("duration", work.duration, ("codec weights", "pairs", "gpu speed"), _with_pairs),
    Check("space", work.space, ("pairs",), _with_pairs),
    Check("writable", work.writable, applies=_with_out),
    Check("memory", machine.memory),
    Check("ray", machine.ray),
)


def checks_for(case: Case) -> tuple[Check, ...]:
    """The checks that a case calls for."""
    return tuple(check for check in CHECKS if check.applies(case))


def examine(case: Case) -> Iterator[Finding]:
    """Make the checks one after another; none hides those after it, unless they need what it found wanting."""
    useless: set[str] = set()
    for check in checks_for(case):
        wanting = [name for name in check.needs if name in useless]
        verdict = skipped(f"needs {' and '.join(wanting)}") if wanting else _judge(check, case)
        if verdict.status in {"failed", "skipped"}:
            useless.add(check.name)
        yield Finding(check.name, *verdict)


def _judge(check: Check, case: Case) -> Verdict:
    try:
        return check.judge(case)
    except CascadenceError as error:
        what, _, mend = str(error).rpartition("; ")
        return failed(what or mend, mend if what else "")
    except Exception as error:  # whatever a library of this machine does: the other checks go on
        said = " ".join(str(error).split())
        return failed(f"{type(error).__name__}: {said}", codec.PINNED)

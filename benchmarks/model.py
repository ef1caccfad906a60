"""Forward and backward of the default model, two stages with the masking agent, against the way of the seeds.

Latents [B, 128, 1200] at the level of EnCodec's, training mode, two threads, the agent's losses and a stand-in for the
audio losses. The baseline is the same model with dropout 0.1 in the attention of stages and agent, and with the agent
asked a second time, without gradient, for what a person watches. A batch of the baseline that does not fit the free
memory is computed in parts whose gradients add up. Every contender is a process of its own, so that its memory can be
told: how much it grows during one pass. Beside the time that passes, the time that the processors work is told.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import nn

from benchmarks.memory import free_mb, growth_mb, hold_at_most, in_own_process, own_process
from benchmarks.timing import compare, measure, report
from shards.heap import keep_freed_memory
from training.models.build import Model, ModelConfig, build_model
from training.models.cascade import CascadeConfig, ModelOutput
from training.models.masking_agent import MaskingAgentConfig

DIM, FRAMES, THREADS = 128, 1200, 2
SHARE_OF_FREE = 0.75
"""Of the free memory, what the baseline may take beside our way."""


@dataclass(frozen=True)
class Way:
    """How a step is computed: `parts` of a batch one after the other; our own way by default."""

    attention_dropout: float = 0.0
    agent_calls: int = 1
    autocast: bool = False
    keeps_memory: bool = True
    parts: int = 1


OURS, BFLOAT16 = Way(), Way(autocast=True)
SEEDS = Way(attention_dropout=0.1, agent_calls=2, keeps_memory=False)


@dataclass(frozen=True)
class Pass:
    """What one pass took: processors' seconds, and growth of memory in MB."""

    processor_seconds: float
    growth_mb: float | None


@dataclass
class Contender:
    """A way and a batch size in a process of its own, and what its passes took."""

    way: Way
    batch: int
    process: ProcessPoolExecutor
    passes: list[Pass] = field(default_factory=list)

    def __call__(self) -> None:
        """Do one pass."""
        self.passes.append(self.process.submit(one_pass, self.way, self.batch).result())

    @property
    def peak_mb(self) -> float | None:
        """By how many MB memory grew at most; a later pass may find what an earlier one kept."""
        return max((each.growth_mb for each in self.passes if each.growth_mb is not None), default=None)


def main() -> None:
    options = read_options()
    ours = replace(OURS, keeps_memory=not options.give_back)
    rows: list[dict[str, Any]] = []
    for batch in options.batches:
        rows += compare_ways(ours, batch, options.rounds, with_bfloat16=batch in options.bf16)
    title = f"Two stages with the masking agent, forward and backward, {FRAMES} frames"
    report(title, "the seeds' way at that batch", rows, as_json=options.json, rounds=options.rounds)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=3, help="passes of each way that count")
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 16], help="batch sizes")
    parser.add_argument(
        "--bf16", type=int, nargs="*", default=[2], help="of them, those that bf16 is tried at; slow where emulated"
    )
    parser.add_argument("--give-back", action="store_true", help="our way without keeping freed memory")
    torch.set_num_threads(THREADS)  # what the report tells
    return parser.parse_args()


def compare_ways(ours: Way, batch: int, rounds: int, *, with_bfloat16: bool) -> list[dict[str, Any]]:
    """Measure our way against the seeds' in turns, then bf16 alone; rows for the report."""
    with ExitStack() as stack:
        kept = stack.enter_context(contender(ours, batch))
        kept()
        seeds, remark = fit_seeds(batch)
        names = {f"batch {batch}, the seeds' way{remark}": stack.enter_context(contender(seeds, batch))}
        names |= {f"batch {batch}, ours": kept}
        seconds = measure(names, rounds)
    baseline = next(iter(names))
    if with_bfloat16:
        with contender(replace(BFLOAT16, keeps_memory=ours.keeps_memory), batch) as cast:
            names[f"batch {batch}, ours in bf16, one pass"] = cast
            began = time.perf_counter()
            cast()
            seconds[next(reversed(names))] = [time.perf_counter() - began]
    rows = compare(seconds, baseline)
    worked = {
        name: statistics.median(p.processor_seconds for p in each.passes[-rounds:]) for name, each in names.items()
    }
    for row in rows:
        row["processor_seconds"] = worked[row["name"]]
        row["processor_ratio"] = worked[baseline] / worked[row["name"]]
        row["peak_mb"] = names[row["name"]].peak_mb
    return rows


@contextmanager
def contender(way: Way, batch: int) -> Iterator[Contender]:
    """Start a contender's process and warm it up; it ends with the block."""
    with own_process() as process:
        process.submit(prepare, free_mb()).result()
        process.submit(one_pass, way, 1, 16).result()  # what libraries set up at their first use
        yield Contender(way, batch, process)


def fit_seeds(batch: int) -> tuple[Way, str]:
    """Cut a batch of the seeds' way into as few equal parts as fit the free memory, and say so."""
    smallest, step = growth_of_seeds()
    parts = next(
        parts
        for parts in range(1, batch + 1)
        if batch % parts == 0 and smallest + (batch // parts - 1) * step < SHARE_OF_FREE * free_mb()
    )
    whole = (smallest + (batch - 1) * step) / 1000
    return replace(SEEDS, parts=parts), f" in {parts} parts, whole {whole:.0f} GB" if parts > 1 else ""


@cache
def growth_of_seeds() -> tuple[float, float]:
    """Memory that the seeds' way takes for a batch of one, and for each pair more, in MB; 0 where nobody tells."""
    one, two = (in_own_process(peak_of, SEEDS, size) or 0.0 for size in (1, 2))
    return one, two - one


# In a contender's process


def prepare(megabytes: float) -> None:
    """Compute on two threads, and fail before the machine has no memory left."""
    torch.set_num_threads(THREADS)
    hold_at_most(megabytes)


def peak_of(way: Way, batch: int) -> float | None:
    """By how many MB the memory of a process grows in a pass."""
    prepare(free_mb())
    one_pass(way, 1, 16)
    return one_pass(way, batch).growth_mb


def one_pass(way: Way, batch: int, frames: int = FRAMES) -> Pass:
    """Compute a loss and its gradient for every weight."""
    model = make_model(way)
    source, goal = 5.6 * torch.randn(2, batch, DIM, frames)
    began = time.process_time()
    grown = growth_mb(lambda: forward_backward(model, way, source, goal))
    return Pass(time.process_time() - began, grown)


@cache
def make_model(way: Way) -> Model:
    """Build the model of a way, in training mode, once a process."""
    if way.keeps_memory:
        keep_freed_memory()
    torch.manual_seed(0)
    dropped = way.attention_dropout
    config = ModelConfig(
        cascade=CascadeConfig(attention_dropout=dropped), masking=MaskingAgentConfig(attention_dropout=dropped)
    )
    return build_model(config, DIM).train()


def forward_backward(model: Model, way: Way, source: torch.Tensor, goal: torch.Tensor) -> None:
    """Compute the loss of each part of a batch, and add up the gradients."""
    model.zero_grad(set_to_none=True)
    for part in zip(source.chunk(way.parts), goal.chunk(way.parts), strict=True):
        with torch.autocast("cpu", torch.bfloat16, enabled=way.autocast):
            for _ in range(way.agent_calls - 1):
                with torch.no_grad():
                    watched = model.agent
                    assert isinstance(watched, nn.Module)
                    watched(*part)
            output: ModelOutput = model(*part)
        assert output.agent is not None
        loss = output.latents.square().mean() + sum(output.agent.losses.values())
        torch.autograd.backward(loss / way.parts)


if __name__ == "__main__":
    main()

"""One of two ranks of a training, in a process of its own: what it sees of batches that only the other one has."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from small_training import CPU, SmallTraining, make_batch, small_config, small_training
from torch import Tensor

from training.health import GaveUp
from training.postmortem import examine_step
from training.runtime import Runtime, grouped_runtime
from training.worker import WorkerSpec, train_rank

AGENTS = {
    "masking": ("losses.gan=0.1", "train.average=0.9"),
    "compositional": ("model.agent=compositional", "losses.gan=0.1", "losses.spectral=0.01"),
}


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names and bytes."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode() + tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def take_steps(training: SmallTraining, rank: int) -> list[dict[str, Any]]:
    """Take four steps; in the second one rank 1, and only that, has a batch that overflows."""
    taken = []
    for place in range(4):
        bad = rank == 1 and place == 1
        done = training.train(place, make_batch(10 * place + rank, input=1e30 if bad else 1.0))
        tensors = training.tensors()
        # Each rank has its own statistics of batches; `Runtime.share_statistics` is for these.
        shared = {name: tensor for name, tensor in tensors.items() if ".running_" not in name}
        taken.append({"counted": float(done.counted), "own": digest(tensors), "shared": digest(shared)})
    return taken


def name_cause(training: SmallTraining, rank: int, runtime: Runtime) -> str:
    batch = make_batch(rank, input=1e30 if rank == 1 else 1.0)
    return examine_step(training.step, training.state, training.config, [batch], runtime)


def train(dataset: Path, run_dir: Path, runtime: Runtime, *overrides: str) -> str:
    """Train to the end; gives what the loop had to say."""
    config = small_config("train.epochs=2", *overrides)
    try:
        train_rank(WorkerSpec(config, str(dataset), run_dir, None, None, None, None), runtime)
    except GaveUp as error:
        return str(error)
    return "trained"


def main(folder: Path, dataset: Path, rank: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    runtime = grouped_runtime(rank, 2, CPU)
    seen: dict[str, Any] = {}
    for agent, overrides in AGENTS.items():
        training = small_training(*overrides, runtime=runtime)
        seen[agent] = take_steps(training, rank)
        seen[f"{agent} cause"] = name_cause(training, rank, runtime)
    seen["one bad pair"] = train(dataset, folder / "one", runtime)
    seen["hopeless"] = train(dataset, folder / "hopeless", runtime, "optimizer.learning_rate=1e30")
    (folder / f"{rank}.json").write_text(json.dumps(seen))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))

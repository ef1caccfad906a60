"""The loader under real ranks: unequal shards hang nobody, and a killed run goes on with exactly what is left."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from make_data import make_dataset

from shards import open_dataset

SIZES = {"train": (10, 10, 3), "val": (5,)}
CONTEXT = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("ranks") / "tiny", SIZES)


def _step_together(path: Path, rank: int, port: int, results: Any) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    steps = {}
    for split in SIZES:
        total = torch.zeros(())
        for batch in open_dataset(path).loader(split, 4, rank=rank, world_size=2):
            # A rank with a step more than the other would wait here for ever.
            total += batch.weight.sum()
            dist.all_reduce(torch.ones(1))
            steps[split] = steps.get(split, 0) + 1
        dist.all_reduce(total)
        steps[f"{split} samples"] = int(total)
    results.put((rank, steps))
    dist.destroy_process_group()


def test_unequal_shards_do_not_hang_two_gloo_ranks(dataset: Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    results = CONTEXT.Queue()
    ranks = [CONTEXT.Process(target=_step_together, args=(dataset, rank, port, results)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    seen = dict(results.get(timeout=120) for _ in ranks)
    for process in ranks:
        process.join(30)
        assert process.exitcode == 0
    assert seen[0] == seen[1] == {"train": 2, "train samples": 16, "val": 1, "val samples": 5}


def _read_until_killed(path: Path, rank: int, world_size: int, stop_after: int, results: Any) -> None:
    loader = open_dataset(path).loader("train", 4 // world_size, seed=9, rank=rank, world_size=world_size)
    for step, batch in enumerate(loader, 1):
        results.put((rank, step, batch.keys, loader.state_dict()))
        if step == stop_after:
            results.close()
            results.join_thread()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("stop_after", "next_world"), [(1, 4), (3, 1), (4, 2)])
def test_a_killed_run_goes_on_with_exactly_what_is_left_at_another_world_size(
    dataset: Path, stop_after: int, next_world: int
) -> None:
    results = CONTEXT.Queue()
    ranks = [CONTEXT.Process(target=_read_until_killed, args=(dataset, r, 2, stop_after, results)) for r in (0, 1)]
    for process in ranks:
        process.start()
    told = [results.get(timeout=120) for _ in range(2 * stop_after)]
    for process in ranks:
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
    before = [key for _, _, keys, _ in told for key in keys]
    state = max((state for *_, state in told), key=lambda state: int(state["samples_done"]))
    after = []
    for rank in range(next_world):
        loader = open_dataset(dataset).loader("train", 4 // next_world, rank=rank, world_size=next_world, seed=9)
        loader.load_state_dict(state)
        after += [key for batch in loader for key in batch.keys]
    whole = [key for batch in open_dataset(dataset).loader("train", 4, seed=9) for key in batch.keys]
    assert sorted(before) == sorted(whole[: 4 * stop_after])
    assert sorted(after) == sorted(whole[4 * stop_after :])

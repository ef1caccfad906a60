"""What is not finite: steps that are skipped without a trace, returns to a sound checkpoint, and the last report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command import run_training
from small_training import (
    ALONE,
    CPU,
    different,
    events,
    fault,
    launch,
    make_batch,
    make_spoilt_dataset,
    small_dataset,
    small_training,
)
from torch import Tensor, nn

from training.checkpoint import load_model, newest_checkpoint, open_checkpoint, restore_state, save_checkpoint
from training.metrics import MetricMeans
from training.postmortem import examine_step
from training.state import new_state

ROOT = Path(__file__).parents[1]
AVERAGED = "train.average=0.9"
MASKING = ("model.agent=masking", "losses.gan=0.1", AVERAGED)
COMPOSITIONAL = ("model.agent=compositional", "losses.gan=0.1", "losses.spectral=0.01", AVERAGED)
SPOILT = {
    # The overflow is in the model, in a loss whose gradient is 0, and in what the discriminator hears as real.
    "masking": (MASKING, {"input": 1e30}),
    "compositional": (COMPOSITIONAL, {"input": 1e30}),
    "a loss alone": ((*ALONE, AVERAGED), {"target": 1e30}),
    "the discriminator alone": ((*ALONE, AVERAGED, "losses.rms_target=0", "losses.gan=0.1"), {"target": 1e40}),
    "one batch of two": ((*MASKING, "train.accumulate=2"), {"input": 1e30}),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_skipped_step_leaves_nothing_behind(case: str) -> None:
    overrides, spoilt = SPOILT[case]
    bad = [make_batch(2, **spoilt)] if case != "one batch of two" else [make_batch(2, **spoilt), make_batch(5)]
    disturbed, undisturbed = small_training(*overrides), small_training(*overrides)
    for training in (disturbed, undisturbed):
        assert float(training.train(0, make_batch(0)).counted) == 1
    before = disturbed.tensors()
    skipped = disturbed.train(1, *bad)
    assert float(skipped.counted) == 0
    assert disturbed.step.skipped_in_a_row() == 1
    assert different(before, disturbed.tensors()) == []
    for training in (disturbed, undisturbed):
        assert float(training.train(2, make_batch(3)).counted) == 1
    assert disturbed.step.skipped_in_a_row() == 0
    assert different(undisturbed.tensors(), disturbed.tensors()) == [], "as if it had never been"
    moved = different(before, disturbed.tensors())
    parts = {"model", "average", "optimizer", *({"discriminator"} if "losses.gan=0.1" in overrides else set())}
    assert parts <= {name.partition(".")[0] for name in moved}, "the comparison sees what moves"


def test_the_first_step_of_all_may_be_skipped() -> None:
    training = small_training(*MASKING)
    before = training.tensors()
    assert float(training.train(0, make_batch(0, input=1e30)).counted) == 0
    after = training.tensors()
    assert different(before, {name: after[name] for name in before}) == []
    assert all(not bool(value.any()) for name, value in after.items() if name not in before), "optimizers at zero"
    assert float(training.train(1, make_batch(1)).counted) == 1


def test_metrics_of_a_skipped_step_count_for_nothing() -> None:
    training = small_training(*MASKING)
    together, alone = MetricMeans(), MetricMeans()
    for place, factor in enumerate((1.0, 1e30, 1.0)):
        done = training.train(place, make_batch(place, input=factor))
        assert bool(done.metrics["loss/total"].isfinite()) == (factor == 1.0)
        together.add(done.metrics, done.counted)
        if factor == 1.0:
            alone.add(done.metrics)
    means = together.read(lambda tensor: tensor)
    assert means == alone.read(lambda tensor: tensor)
    assert all(map(torch.isfinite, map(torch.tensor, means.values())))


def test_means_of_skipped_steps_alone_are_left_out() -> None:
    training, means = small_training(*MASKING), MetricMeans()
    for place in range(2):
        done = training.train(place, make_batch(place, input=1e30))
        means.add(done.metrics, done.counted)
        means.add({"health/skipped": 1 - done.counted})
    saved = means.state_dict(lambda tensor: tensor)
    json.dumps(saved, allow_nan=False)
    assert means.read(lambda tensor: tensor) == {"health/skipped": 1.0}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("data") / "ds")


def weights(run_dir: Path, name: str = "last") -> dict[str, Tensor]:
    return load_model(run_dir / "checkpoints" / name).state_dict()


def test_three_skips_in_a_row_go_back_to_the_checkpoint_and_take_the_same_batches_at_half_the_rate(
    dataset: Path, tmp_path: Path
) -> None:
    with fault(lambda number, _: 5 <= number < 8) as seen:
        done = launch(dataset, tmp_path / "run", "train.epochs=3", "optimizer.learning_rate=1e-3")
    assert done.code == 0, "the last epoch went well"
    (back,) = events(tmp_path / "run", "rollback")
    assert (back["from_step"], back["step"], back["rate_factor"]) == (8, 4, 0.5)
    assert seen.inputs[8:12] == seen.inputs[4:8], "the same batches come again"
    assert "step 8: not finite; back to step 4 at 0.5 of the learning rate" in done.err
    assert "health: non-finite is red" in done.err
    counted = [event for event in events(tmp_path / "run", "train") if "loss/total" in event]
    assert [event["step"] for event in counted] == [*range(1, 6), *range(5, 13)]
    rates = [event["optimizer/learning_rate"] for event in counted]
    assert rates == pytest.approx([1e-3] * 5 + [5e-4] * 8)
    newest = newest_checkpoint(tmp_path / "run")
    assert newest is not None
    assert (newest.progress.rollbacks, newest.progress.step) == (1, 12)
    # The same as a run that had half the rate from there on.
    launch(dataset, tmp_path / "other", "train.epochs=1", "optimizer.learning_rate=1e-3")
    launch(dataset, tmp_path / "other", "train.epochs=3", "optimizer.learning_rate=5e-4")
    assert different(weights(tmp_path / "run"), weights(tmp_path / "other")) == []


def test_two_skips_in_a_row_are_no_reason_to_go_back(dataset: Path, tmp_path: Path) -> None:
    with fault(lambda number, _: number in {1, 2, 4, 5}):
        assert launch(dataset, tmp_path / "run", "train.epochs=3").code == 0
    assert events(tmp_path / "run", "rollback") == []
    skipped = {event["step"]: event["health/skipped"] for event in events(tmp_path / "run", "train")}
    assert [step for step, share in skipped.items() if share] == [2, 3, 5, 6]
    told = {event["step"]: event for event in events(tmp_path / "run", "train")}
    assert "loss/total" not in told[2]
    assert told[4]["loss/total"] > 0
    assert all(event["train"]["loss/total"] > 0 for event in events(tmp_path / "run", "epoch"))


def test_a_checkpoint_within_the_epoch_is_gone_back_to_and_never_saved_while_steps_are_skipped(
    dataset: Path, tmp_path: Path
) -> None:
    with fault(lambda number, _: 2 <= number < 5) as seen:
        done = launch(dataset, tmp_path / "run", "train.epochs=2", "train.checkpoint_steps=1")
    assert done.code == 0
    (back,) = events(tmp_path / "run", "rollback")
    assert (back["from_step"], back["step"]) == (5, 2)
    # Two steps of the first epoch were the last ones to be sound; its other two came again.
    assert seen.inputs[5:8] == seen.inputs[2:5]


def test_an_epoch_whose_end_is_in_doubt_is_not_what_is_gone_back_to(dataset: Path, tmp_path: Path) -> None:
    # From the third step of the second epoch on, in validation too, and until the third skip.
    with fault(lambda number, module: 6 <= number < 9 and (module.training or number > 6)):
        done = launch(dataset, tmp_path / "run", "train.epochs=3")
    assert done.code == 0
    (back,) = events(tmp_path / "run", "rollback")
    assert (back["from_step"], back["step"]) == (9, 4)
    assert [event["val/loss/total"] is None for event in events(tmp_path / "run", "epoch")] == [
        False,
        True,
        False,
        False,
    ]


def test_a_checkpoint_from_which_no_step_counts_is_left_for_the_one_before_it(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert launch(dataset, run, "train.epochs=2", "train.checkpoint_epochs=1").code == 0
    last = open_checkpoint(run / "checkpoints" / "last")
    state = new_state(last.config, 128, CPU)
    restore_state(last, state)
    with torch.no_grad():
        state.model.get_parameter("stages.0.layers.0.expand.weight").mul_(1e30)  # a number, but none to work with
    for name in ("last", "best", "epoch_0002"):
        if open_checkpoint(run / "checkpoints" / name).progress.step == 8:
            save_checkpoint(run / "checkpoints" / name, state, last.config, last.record)
    assert launch(dataset, run, "train.epochs=3").code == 0
    (back,) = events(run, "rollback")
    assert (back["from_step"], back["step"]) == (11, 4)
    assert events(run)[-1]["event"] == "end"


def test_a_run_that_began_from_another_runs_checkpoint_has_one_to_go_back_to(dataset: Path, tmp_path: Path) -> None:
    launch(dataset, tmp_path / "first", "train.epochs=1")
    begun = ("--resume", str(tmp_path / "first" / "checkpoints" / "last"))
    with fault(lambda number, _: number < 3):
        done = launch(dataset, tmp_path / "run", "train.epochs=3", extra=begun)
    assert done.code == 0, done
    assert [event["step"] for event in events(tmp_path / "run", "rollback")] == [4]


def start(*arguments: object) -> subprocess.Popen[str]:
    """Run Python in a process of its own, with the tests' modules at hand."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    # Sums in another number of threads differ in the last bit.
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT)


KILLED = """
import os, signal, sys
from pathlib import Path
from small_training import fault, launch

def spoils(number, module):
    if number == 8:  # the first pass after the return
        os.kill(os.getpid(), signal.SIGKILL)
    return 5 <= number < 8

with fault(spoils):
    launch(Path(sys.argv[1]), Path(sys.argv[2]), "train.epochs=3", "optimizer.learning_rate=1e-3")
"""


@pytest.mark.slow
def test_a_run_that_is_killed_right_after_a_return_goes_on_at_the_lower_rate(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("-c", KILLED, dataset, run)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    newest = newest_checkpoint(run)
    assert newest is not None
    assert (newest.path.name, newest.progress.rollbacks, newest.progress.step) == ("last", 1, 4)
    assert launch(dataset, run, "train.epochs=3", "optimizer.learning_rate=1e-3").code == 0
    with fault(lambda number, _: 5 <= number < 8):
        launch(dataset, tmp_path / "alive", "train.epochs=3", "optimizer.learning_rate=1e-3")
    assert different(weights(run), weights(tmp_path / "alive")) == []


def test_after_three_returns_the_training_stops_with_a_report(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # Weights of 1e30 are numbers, but what they make is none; half of that rate is no better.
    done = launch(dataset, run, "train.epochs=3", "optimizer.learning_rate=1e30")
    assert done.code == 1
    told = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert "not finite again at step 3, after returns at ever lower rates; first in the output of agent." in told[0]
    assert "start anew with a lower optimizer.learning_rate" in told[0]
    assert [event["rate_factor"] for event in events(run, "rollback")] == [0.5, 0.25, 0.125]
    assert events(run)[-1]["event"] == "failed"
    written = json.loads((run / "health.json").read_text())
    assert "non-finite" in written["red"]
    assert written["rules"][0]["value"].startswith("gave up; first in the output of agent.")
    assert run_training("health", run).code == 1
    newest = newest_checkpoint(run)
    assert newest is not None
    assert newest.progress.rollbacks == 3
    load_model(newest.path)  # it can be used


def test_one_overflowing_pair_is_skipped_and_told_of(tmp_path: Path) -> None:
    spoilt = make_spoilt_dataset(tmp_path / "ds", 8, bad=[3], by=1e30, sides=["input"])
    done = launch(spoilt, tmp_path / "run", "train.epochs=2", "losses.gan=0.1")
    shares = [event["health/skipped"] for event in events(tmp_path / "run", "train")]
    assert sum(shares) == 2, "once an epoch"
    assert events(tmp_path / "run")[-1]["event"] == "end"
    assert done.code == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert "trained, but red at the end: non-finite (steps skipped in 2 of 8 lines" in line or "1 of 4" in line
    assert "its checkpoints can be used" in line


def test_a_held_out_pair_that_overflows_is_told_of_and_saved_around(tmp_path: Path) -> None:
    spoilt = make_spoilt_dataset(tmp_path / "ds", 4, bad=[4], by=1e30, sides=["target"])
    assert launch(spoilt, tmp_path / "run", "train.epochs=2").code == 1
    (first, second) = events(tmp_path / "run", "epoch")
    assert first["val/loss/total"] is None
    assert second["best"] is False
    assert newest_checkpoint(tmp_path / "run").progress.epoch == 2  # type: ignore[union-attr]


def infinite_weight(model: nn.Module) -> None:
    def spoil(module: nn.Module, inputs: Any) -> None:
        with torch.no_grad():
            module.get_parameter("stages.0.layers.0.expand.bias")[0] = torch.inf

    model.register_forward_pre_hook(spoil)


def gradients_times(factor: float) -> Callable[[nn.Module], None]:
    def spoil(module: nn.Module, inputs: Any, output: Tensor) -> None:
        output.register_hook(lambda gradient: gradient * factor)

    return lambda model: model.get_submodule("stages.1.projection").register_forward_hook(spoil)  # type: ignore[return-value]


def nothing(model: nn.Module) -> None:
    pass


CAUSES: dict[str, tuple[tuple[str, ...], Callable[[nn.Module], None], dict[str, float], str]] = {
    "batch": (MASKING, infinite_weight, {"target": torch.nan}, "the target latents of 1-0, 1-1"),
    "weight": (MASKING, infinite_weight, {}, "the weight stages.0.layers.0.expand.bias"),
    "overflow": (MASKING, nothing, {"input": 1e30}, "the output of agent (MaskingAgent)"),
    "loss": (ALONE, nothing, {"target": 1e30}, "the loss rms_target"),
    "gradient": (MASKING, gradients_times(torch.inf), {}, "the gradient of stages.1.projection.linear.bias"),
    "norm": (MASKING, gradients_times(1e22), {}, "the norm over all gradients of the model, though each is finite"),
    "adversary": (
        (*ALONE, "losses.rms_target=0", "losses.gan=0.1"),
        nothing,
        {"target": 1e40},
        "the output of discriminator.convolutions.0 (Conv1d)",
    ),
    "none": (MASKING, nothing, {}, "nothing: taken again, the step is finite"),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_the_report_names_the_first_thing_that_is_not_finite(cause: str) -> None:
    overrides, spoil, factors, wanted = CAUSES[cause]
    training = small_training(*overrides)
    training.train(0, make_batch(0))
    spoil(training.state.model)
    batch = make_batch(1, **factors)
    training.state.progress = replace(training.state.progress, step=1)
    if cause not in {"batch", "none"}:
        assert float(training.step.train([batch]).counted) == 0
    told = examine_step(training.step, training.state, training.config, [batch], training.runtime)
    assert told == wanted
    hooks = [module._forward_hooks for module in training.state.model.modules()]
    assert sum(map(len, hooks)) == (cause in {"gradient", "norm"}), "nothing goes on watching"


@pytest.mark.slow
def test_two_ranks_skip_together_return_together_and_stop_together(tmp_path: Path) -> None:
    """One run of two processes, looked at from all sides: starting them takes longest."""
    spoilt = make_spoilt_dataset(tmp_path / "ds", 8, bad=[3], by=1e30, sides=["input"])
    ranks = [start(ROOT / "tests" / "two_ranks.py", tmp_path, spoilt, rank) for rank in range(2)]
    errors = [process.communicate()[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], errors
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    for agent in ("masking", "compositional"):
        assert [step["counted"] for step in first[agent]] == [1, 0, 1, 1]
        assert [step["counted"] for step in second[agent]] == [1, 0, 1, 1]
        for steps in (first[agent], second[agent]):
            assert steps[1]["own"] == steps[0]["own"], "the skipped step left nothing behind"
            assert len({step["own"] for step in steps}) == 3, "the others did"
        shared = [[step["shared"] for step in rank[agent]] for rank in (first, second)]
        assert shared[0] == shared[1], "both hold the same weights to the bit, all the way"
    for cause in ("masking cause", "compositional cause"):
        assert first[cause] == second[cause]
        assert first[cause].endswith("(on rank 1)")
    assert first["masking cause"] == "the output of agent (MaskingAgent) (on rank 1)"
    assert first["one bad pair"] == second["one bad pair"] == "trained"
    assert [event["health/skipped"] for event in events(tmp_path / "one", "train")].count(1.0) == 2, "once an epoch"
    assert events(tmp_path / "one")[-1]["event"] == "end"
    assert first["hopeless"] == second["hopeless"]
    assert "not finite again at step" in first["hopeless"]
    assert len(events(tmp_path / "hopeless", "rollback")) == 3

"""`--profile`: where the milliseconds of a step go."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from command import run_training
from make_data import make_dataset
from torch.profiler import record_function

from training.profiling import PROFILE, Span, StepProfiler, account_for, innermost, read_account

CPU = torch.device("cpu")


def test_time_of_nested_ranges_is_the_innermost_ones() -> None:
    ranges = [Span("outer", 0, 10), Span("inner", 2, 5), Span("core", 3, 4), Span("inner", 6, 7), Span("next", 10, 12)]
    assert list(innermost(ranges)) == [
        Span("outer", 0, 2),
        Span("inner", 2, 3),
        Span("core", 3, 4),
        Span("inner", 4, 5),
        Span("outer", 5, 6),
        Span("inner", 6, 7),
        Span("outer", 7, 10),
        Span("next", 10, 12),
    ]


def test_parts_and_rest_are_the_step() -> None:
    steps = [Span("ProfilerStep*", 0, 10_000), Span("ProfilerStep*", 10_000, 30_000)]
    parts = [Span("model", 1000, 5000), Span("decode", 2000, 3000), Span("model", 11_000, 16_000)]
    account = account_for(steps, parts)
    assert account is not None
    assert (account.steps, account.step, account.parts) == (2, 15.0, {"model": 4.0, "decode": 0.5})
    assert account.explained == pytest.approx(4.5 / 15)


def test_a_step_with_a_validation_in_it_does_not_count() -> None:
    steps = [Span("ProfilerStep*", 0, 1000), Span("ProfilerStep*", 1000, 9000)]
    parts = [Span("decode", 100, 600), Span("decode", 2000, 8000)]
    account = account_for(steps, parts, [Span("evaluate", 1500, 8500)])
    assert account is not None
    assert (account.steps, account.step, account.parts) == (1, 1.0, {"decode": 0.5})
    assert account_for(steps[1:], parts, [Span("evaluate", 1500, 8500)]) is None


def test_on_a_gpu_the_time_is_that_of_the_kernels_that_a_part_launched() -> None:
    steps = [Span("ProfilerStep*", 0, 1000)]
    parts = [Span("model", 0, 100), Span("backward", 100, 200)]
    # Launched within 200 us, busy for 900; what was launched before and after belongs to other steps.
    kernels = [(-5.0, 50.0), (10.0, 300.0), (110.0, 400.0), (120.0, 200.0), (1100.0, 70.0)]
    account = account_for(steps, parts, [], kernels)
    assert account is not None
    assert account.parts == {"model": 0.3, "backward": 0.6}
    assert account.explained == pytest.approx(0.9)


def profile_steps(folder: Path, count: int) -> None:
    profiler = StepProfiler(folder, CPU)
    numbers = torch.ones(64, 64)
    for _ in range(count):
        with record_function("step/outer"):
            numbers @ numbers
            with record_function("step/inner"):
                numbers @ numbers
        profiler.step()
    with record_function("step/after"):  # the end of a run: in no step
        numbers @ numbers
    profiler.close()


@pytest.mark.parametrize(("count", "measured"), [(20, 8), (12, 8), (7, 3), (5, 1), (4, 0), (3, 0), (0, 0)])
def test_a_run_of_few_steps_has_a_profile_of_those_there_are(tmp_path: Path, count: int, measured: int) -> None:
    (tmp_path / PROFILE).mkdir()
    (tmp_path / PROFILE / "parts.json").write_text("of an earlier launch")
    profile_steps(tmp_path / PROFILE, count)
    account = read_account(tmp_path)
    if not measured:
        assert account is None
        return
    assert account is not None
    assert account.steps == measured
    assert set(account.parts) == {"outer", "inner"}
    assert 0 < account.explained <= 1
    trace = json.loads(gzip.decompress((tmp_path / PROFILE / "trace.json.gz").read_bytes()))
    assert any(event.get("name") == "step/inner" for event in trace["traceEvents"])
    assert "aten::mm" in (tmp_path / PROFILE / "operators.txt").read_text()


def test_launch_prints_where_the_time_goes(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "ds", {"train": [8], "val": [1]})
    small = ("model.cascade.layers=1", "model.cascade.feedforward=1", "train.audio_crop_seconds=0.25", "losses.gan=0.1")
    more = ("data.batch_size=2", "train.epochs=2", "tracking.mlflow=off", "tracking.sample_epochs=null")
    sets = [part for override in (*small, *more) for part in ("--set", override)]
    options = ("launch", "--shards", dataset, "--run-dir", tmp_path / "run", "--local", "--profile", *sets)
    done = run_training(*options)
    assert done.code == 0, done
    account = read_account(tmp_path / "run")
    assert account is not None
    assert account.steps == 3, "eight steps, two let pass, two to warm up, and in one the first epoch ended"
    assert set(account.parts) >= {"model", "decode", "losses", "backward", "update", "discriminator", "wait for data"}
    assert account.explained > 0.5
    rows = [line.split() for line in done.out.splitlines()]
    end = next(place for place, row in enumerate(rows) if row[-3:-2] == ["step"]) + 1
    table = rows[end - len(account.parts) - 2 : end]
    shares = [float(row[-1].rstrip("%")) for row in table]
    assert [row[-3] for row in table[-2:]] == ["waiting", "step"]
    assert shares[-1] == 100.0
    assert sum(shares[:-1]) == pytest.approx(100.0, abs=1.0)
    assert shares[:-2] == sorted(shares[:-2], reverse=True)
    again = run_training(*options, "--set", "train.epochs=3", "--json")
    assert again.code == 0, again
    assert "profile" not in again.json, "four steps are too few"
    assert read_account(tmp_path / "run") is None

"""What a person sees of a running training, on 80 columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.events import METRICS, Event, append_event
from training.progress_view import EpochRows, ProgressView, short_time

MASKING = {
    "val/agent/complementarity": 0.9123,
    "val/agent/input_mask_mean": 0.512,
    "val/agent/target_mask_mean": 0.488,
}
COMPOSITIONAL = {
    "val/agent/novelty": 0.0534,
    "val/agent/input_rhythm_weight": 0.1,
    "val/agent/input_harmony_weight": 0.31,
    "val/agent/input_timbre_weight": 0.1,
    "val/agent/target_rhythm_weight": 0.1,
    "val/agent/target_harmony_weight": 0.1651,
    "val/agent/target_timbre_weight": 0.2249,
    "val/agent/input_harmony_energy": 99.0,
}
GAN = {"gan/real_accuracy": 0.724, "gan/fake_accuracy": 0.48}


def epoch(number: int, when: float, *, best: bool = False, train: Any = None, red: Any = None, **judged: Any) -> Event:
    place = {"event": "epoch", "epoch": number, "step": 10 * number, "time": when}
    return {**place, "best": best, "train": train or {}, "red": red or {}, "val/loss/total": 0.38364, **judged}


def test_a_row_of_each_agent_fits_80_columns() -> None:
    for judged in (MASKING, COMPOSITIONAL, {}):
        rows = EpochRows(100, 0.0)
        rows.hear_steps({"speed/pairs_per_second": 123.4567})
        lines = rows.row(epoch(12, 20_000.0, best=True, train=GAN, red={"a": "", "b": ""}, **judged))
        assert len(lines) == 2, "a heading and a row"
        assert len(lines[0]) == len(lines[1]) <= 79, lines


def test_a_row_tells_what_the_agent_does() -> None:
    rows = EpochRows(100, 0.0)
    rows.hear_steps({"speed/pairs_per_second": 2.0})
    rows.hear_steps({"speed/pairs_per_second": 4.0})
    lines = rows.row(epoch(1, 60.0, best=True, train=GAN, red={"GAN": "72%"}, **MASKING))
    assert [lines[0].split(), lines[1].split()] == [
        ["epoch", "loss", "complementarity", "masks", "GAN", "pairs/s", "left", "red"],
        ["1/100", "0.3836*", "0.912", "0.51/0.49", "72/48", "3", "1h39", "1"],
    ]
    lines = EpochRows(2, 0.0).row(epoch(1, 60.0, **COMPOSITIONAL))
    assert "novelty     of input    of target   left  red" in lines[0]
    assert "  0.3836     0.053  harmony 31%   timbre 22%    60s" in lines[1], "not the best, nothing red, no GAN"


def test_time_left_is_that_of_the_last_epochs_and_headings_come_again() -> None:
    rows = EpochRows(100, 0.0)
    headings, left = 0, ""
    now = 0.0
    for number in range(1, 51):
        now += 1000.0 if number <= 40 else 60.0
        lines = rows.row(epoch(number, now))
        headings += len(lines) - 1
        left = lines[-1].split()[-1]
    assert headings == 3
    assert left == "50m", "fifty epochs of a minute"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0s"),
        (99, "99s"),
        (100, "2m"),
        (3569, "59m"),
        (3599, "1h00"),
        (7500, "2h05"),
        (273_600, "3d04h"),
        (1e6, "12d"),
    ],
)
def test_times_are_short(seconds: float, told: str) -> None:
    assert short_time(seconds) == told


def test_a_loss_that_is_no_number_is_none() -> None:
    lines = EpochRows(2, 0.0).row(epoch(1, 1.0, **{**MASKING, "val/loss/total": None}))
    assert lines[1].split()[1] == "none"


def test_the_view_tells_each_event_once_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = {"epoch": 1, "step": 4, "time": 4e9}
    start = {"epochs": 2, "steps_per_epoch": 4, "batch_size": 2, "world_size": 1, "parameters": 1234567}
    events: list[Event] = [
        {"event": "start", **place, **start},
        {"event": "train", **place, "loss/total": 0.5, "speed/pairs_per_second": 1.5},
        {"event": "rollback", **place, "from_step": 9, "rate_factor": 0.5},
        epoch(1, 4e9 + 5, **MASKING),
        {"event": "alert", **place, "rule": "novelty", "value": "0", "mend": "raise losses.novelty"},
        {"event": "samples", **place, "folders": []},
        {"event": "warning", **place, "text": "MLflow at [nowhere] fails"},
        {"event": "end", **place},
    ]
    with ProgressView(tmp_path):
        for event in events:
            append_event(tmp_path / METRICS, event)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "1,234,567 parameters, 1 x 2 pairs a step, 4 steps an epoch"
    assert said[1] == "step 9: not finite; back to step 4 at 0.5 of the learning rate"
    assert [said[2].split()[0], said[3].split()[0]] == ["epoch", "1/2"]
    assert said[4:] == [
        "health: novelty is red (0); raise losses.novelty",
        "warning: MLflow at [nowhere] fails",
    ]


def test_what_an_earlier_launch_told_is_no_news(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / METRICS).write_text(json.dumps({"event": "warning", "step": 1, "epoch": 0, "time": 1.0, "text": "x"}))
    with ProgressView(tmp_path):
        append_event(tmp_path / METRICS, {"event": "end", "step": 1, "epoch": 0, "time": 4e9})
    assert capsys.readouterr().err == ""

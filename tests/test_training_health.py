"""Health: every rule at its borders, the document and the command, and what a launch makes of it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command import assert_one_line, run_training
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import events, launch, small_dataset

from training.checkpoint import load_model
from training.events import METRICS, Event, JsonLinesSink
from training.health import HEALTH, RULES, HealthMonitor, History, examine, read_run
from training.step import Step

NAMES = [rule.name for rule in RULES]


def epoch(number: int, dead: Sequence[str] | None = None, train: dict[str, Any] | None = None, **val: Any) -> Event:
    """An `epoch` event of ten steps; of `val`, `agent__novelty` stands for `val/agent/novelty`."""
    place = {"step": 10 * number, "epoch": number, "time": float(number), "best": False}
    judged = {f"val/{name.replace('__', '/')}": value for name, value in val.items()}
    return {"event": "epoch", **place, "train": train or {}, "dead": dead, **judged}


def line(step: int, norm: float | None = 1.0, peak: float | None = None, skipped: float = 0.0) -> Event:
    """A `train` event; without a peak it is the norm."""
    told = {} if norm is None else {"gradient/norm": norm, "gradient/norm_max": norm if peak is None else peak}
    return {"event": "train", "step": step, "epoch": 0, "time": 0.0, "health/skipped": skipped, **told}


def rollback(step: int, in_epoch: int = 0) -> Event:
    return {
        "event": "rollback",
        "step": step,
        "epoch": in_epoch,
        "time": 0.0,
        "from_step": step + 5,
        "rate_factor": 0.5,
    }


def verdict(rule: str, *events: Event) -> str:
    (found,) = [finding for finding in examine(History.of(events)) if finding.rule == rule]
    return found.verdict


def falling(*values: float) -> list[Event]:
    return [epoch(number, agent__complementarity=value) for number, value in enumerate(values, 1)]


def components(number: int, first: float, second: float = 1 / 6) -> Event:
    weights = {f"input_{name}": 1 / 6 for name in ("rhythm", "harmony", "timbre")} | {"target_harmony": 1 / 6}
    weights |= {"target_rhythm": first, "target_timbre": second}
    return epoch(number, **{f"agent__{name}_weight": value for name, value in weights.items()})


CALM = [line(step) for step in range(1, 11)]
CASES: list[tuple[str, str, list[Event]]] = [
    ("unknown", "non-finite", []),
    ("green", "non-finite", [line(1)]),
    ("red", "non-finite", [line(1), line(2, skipped=0.1)]),
    ("red", "non-finite", [line(1, norm=None, skipped=1.0)]),
    ("red", "non-finite", [rollback(0)]),
    ("red", "non-finite", [line(1), epoch(1, loss__total=None)]),
    ("red", "non-finite", [line(1), epoch(1, loss__total=math.inf)]),
    ("green", "non-finite", [line(1), epoch(1, loss__total=0.5)]),
    ("unknown", "gradient norm", []),
    ("unknown", "gradient norm", [line(1, norm=None, skipped=1.0)]),
    ("green", "gradient norm", [line(1, peak=100.0)]),
    ("red", "gradient norm", [line(1, peak=100.1)]),
    ("green", "gradient norm", [*CALM, line(11, norm=10.0, peak=90.0)]),
    ("red", "gradient norm", [*CALM, line(11, norm=10.1)]),
    (
        "green",
        "gradient norm",
        [*(line(step, norm=0.1) for step in range(20)), line(21, norm=9.9)],
    ),  # too small to clip
    ("green", "gradient norm", [*CALM[:9], line(11, norm=10.1)]),  # a median of nine is none yet
    ("green", "gradient norm", [*(line(step, norm=90.0) for step in range(20)), *CALM]),  # it fell since
    ("unknown", "RMS scale", [epoch(1)]),
    ("green", "RMS scale", [epoch(1, train={"level/clamped": 0.1})]),
    ("red", "RMS scale", [epoch(1, train={"level/clamped": 0.101})]),
    ("unknown", "complementarity", [epoch(20)]),
    ("green", "complementarity", [epoch(19, agent__complementarity=0.75)]),
    ("red", "complementarity", [epoch(20, agent__complementarity=0.799)]),
    ("green", "complementarity", [epoch(20, agent__complementarity=0.8)]),
    ("red", "complementarity", falling(0.9, 0.898, 0.896, 0.894)),
    ("green", "complementarity", falling(0.9, 0.898, 0.896)),
    ("green", "complementarity", falling(0.9, 0.8991, 0.8982, 0.8973)),  # less than a thousandth is noise
    ("green", "complementarity", falling(0.9, 0.898, 0.896, 0.894, 0.895)),
    ("unknown", "mask balance", [epoch(1)]),
    ("green", "mask balance", [epoch(1, agent__input_mask_mean=0.45, agent__target_mask_mean=0.55)]),
    ("red", "mask balance", [epoch(1, agent__input_mask_mean=0.449, agent__target_mask_mean=0.5)]),
    ("red", "mask balance", [epoch(1, agent__input_mask_mean=0.5, agent__target_mask_mean=0.551)]),
    ("unknown", "novelty", [epoch(1)]),
    ("red", "novelty", [epoch(1, agent__novelty=0.0)]),
    ("green", "novelty", [epoch(1, agent__novelty=1e-6)]),
    ("green", "novelty", [epoch(1, agent__novelty=0.2)]),
    ("red", "novelty", [epoch(1, agent__novelty=0.201)]),
    ("unknown", "component weights", [epoch(15)]),
    ("unknown", "component weights", [components(14, 1 / 6)]),
    ("red", "component weights", [components(15, 1 / 6 + 0.0099, 1 / 6 - 0.0099)]),
    ("green", "component weights", [components(15, 1 / 6 + 0.0101)]),
    ("green", "component weights", [components(15, 1 / 6 - 0.0101)]),
    ("unknown", "agent gradients", [epoch(1)]),
    ("green", "agent gradients", [epoch(1, train={"gradient/agent": 1e-4})]),
    ("red", "agent gradients", [epoch(1, train={"gradient/agent": 0.99e-4})]),
    ("unknown", "copying", [epoch(1, likeness__input=0.9)]),
    ("green", "copying", [epoch(1, likeness__input=0.7, likeness__target=0.1)]),
    ("red", "copying", [epoch(1, likeness__input=0.71, likeness__target=0.1)]),
    ("red", "copying", [epoch(1, likeness__input=0.1, likeness__target=-0.71)]),
    ("green", "copying", [epoch(1, likeness__input=0.8, likeness__target=0.4)]),
    ("red", "copying", [epoch(1, likeness__input=0.8, likeness__target=0.399)]),
    ("unknown", "GAN", [epoch(1)]),
    ("red", "GAN", [epoch(1, train={"gan/real_accuracy": 0.951})]),
    ("green", "GAN", [epoch(1, train={"gan/real_accuracy": 0.95})]),
    ("green", "GAN", [epoch(1, train={"gan/real_accuracy": 0.55})]),
    ("red", "GAN", [epoch(1, train={"gan/real_accuracy": 0.549})]),
    ("unknown", "output level", [epoch(1)]),
    ("red", "output level", [epoch(1, level__rms_ratio=0.799)]),
    ("green", "output level", [epoch(1, level__rms_ratio=0.8)]),
    ("green", "output level", [epoch(1, level__rms_ratio=1.25)]),
    ("red", "output level", [epoch(1, level__rms_ratio=1.251)]),
    ("unknown", "dead parameters", [epoch(1, dead=None)]),
    ("green", "dead parameters", [epoch(1, dead=[])]),
    ("red", "dead parameters", [epoch(1, dead=["agent.input_head.0.bias"])]),
]


@pytest.mark.parametrize(("wanted", "rule", "events"), CASES)
def test_a_rule_is_red_past_its_border_and_not_on_it(wanted: str, rule: str, events: list[Event]) -> None:
    assert verdict(rule, *events) == wanted


def test_every_rule_is_tested_green_red_and_with_nothing_to_judge() -> None:
    assert {(wanted, rule) for wanted, rule, _ in CASES} == {(v, n) for v in ("green", "red", "unknown") for n in NAMES}


def test_a_run_that_has_just_begun_has_nothing_to_judge() -> None:
    start = {"event": "start", "step": 0, "epoch": 0, "time": 0.0}
    assert {finding.verdict for finding in examine(History.of([start]))} == {"unknown"}
    assert {finding.verdict for finding in examine(History())} == {"unknown"}


def test_the_newest_epoch_is_judged_and_not_one_before_it() -> None:
    loud, well = epoch(1, level__rms_ratio=2.0), epoch(2, level__rms_ratio=1.0)
    assert verdict("output level", loud, well) == "green"
    assert verdict("output level", well, loud | {"epoch": 3}) == "red"
    assert verdict("output level", loud, epoch(2)) == "unknown", "the newest one does not say"


def test_a_severe_alert_stands_until_an_epoch_went_well() -> None:
    bad = [line(5, peak=500.0), line(6, skipped=0.5), rollback(3), line(4), epoch(1)]
    after = [line(11), line(12)]
    for rule in ("non-finite", "gradient norm"):
        assert verdict(rule, *bad) == "red"
        assert verdict(rule, *bad, *after) == "red", "the next epoch has not ended"
        assert verdict(rule, *bad, *after, epoch(2)) == "green"
    (found,) = [f for f in examine(History.of([*bad, *after, epoch(2)])) if f.rule == "non-finite"]
    assert "1 return before" in found.value


def test_a_run_that_gave_up_is_red_whatever_else_it_says_until_it_is_launched_again() -> None:
    failed = {"event": "failed", "step": 9, "epoch": 1, "time": 0.0, "where": "the weight stages.0.x"}
    (found,) = [f for f in examine(History.of([*CALM, epoch(1), failed])) if f.rule == "non-finite"]
    assert (found.verdict, found.value) == ("red", "gave up; first in the weight stages.0.x")
    start = {"event": "start", "step": 10, "epoch": 1, "time": 0.0}
    assert verdict("non-finite", *CALM, epoch(1), failed, start) == "green"


def test_an_epoch_that_is_told_again_or_undone_is_judged_once() -> None:
    told = falling(0.9, 0.898, 0.896)
    again = epoch(3, agent__complementarity=0.896)
    assert verdict("complementarity", *told, again, epoch(4, agent__complementarity=0.894)) == "red"
    undone = [*told, epoch(4, agent__complementarity=0.894), rollback(25, in_epoch=2)]
    assert verdict("complementarity", *undone) == "green"
    assert History.of(undone).epochs[-1].number == 2


def test_what_is_dead_is_named_and_many_are_counted() -> None:
    names = [f"stages.0.layers.{n}.expand.bias" for n in range(7)]
    (found,) = [f for f in examine(History.of([epoch(1, dead=names)])) if f.rule == "dead parameters"]
    assert found.value == ", ".join(names[:5]) + " and 2 more"


METRIC = st.sampled_from(
    ["agent__complementarity", "agent__novelty", "agent__input_mask_mean", "likeness__input", "level__rms_ratio"]
)
NUMBER = st.one_of(st.none(), st.floats(), st.integers(-3, 3))


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.dictionaries(METRIC, NUMBER), NUMBER, NUMBER), max_size=8))
def test_no_history_is_too_strange_to_be_judged_and_written(told: list[tuple[int, dict[str, Any], Any, Any]]) -> None:
    events: list[Event] = []
    for number, val, norm, skipped in told:
        events += [line(number, norm, norm, skipped), epoch(number, train={"gradient/agent": norm}, **val)]
    findings = examine(History.of(events))
    assert [finding.rule for finding in findings] == NAMES
    assert all(finding.value for finding in findings)
    # What a metrics file has in the place of numbers that are none is judged like them.
    plain = json.loads(json.dumps(events), parse_constant=lambda _: None)
    assert examine(History.of(plain)) == findings


def test_alerts_come_once_when_a_rule_turns_red_and_again_when_it_does_so_again(tmp_path: Path) -> None:
    monitor = HealthMonitor(tmp_path)
    told = [monitor.hear(epoch(n, level__rms_ratio=ratio)) for n, ratio in enumerate((1.0, 2.0, 2.0, 1.0, 0.5), 1)]
    assert [[event["event"] for event in events] for events in told] == [
        ["epoch"],
        ["epoch", "alert"],
        ["epoch"],
        ["epoch"],
        ["epoch", "alert"],
    ]
    alert = told[1][1]
    assert (alert["rule"], alert["epoch"], alert["severe"]) == ("output level", 2, False)
    assert alert["value"] == "2.00 of the sources'"
    assert "losses.rms_input" in alert["mend"]


def test_a_resumed_run_does_not_tell_its_old_alerts_again(tmp_path: Path) -> None:
    past = [epoch(1, level__rms_ratio=2.0)]
    resumed = HealthMonitor(tmp_path, past)
    assert [event["event"] for event in resumed.hear(epoch(2, level__rms_ratio=2.0))] == ["epoch"]


def test_the_document_is_written_when_a_run_is_judged_and_is_what_the_command_says(tmp_path: Path) -> None:
    monitor, sink = HealthMonitor(tmp_path), JsonLinesSink(tmp_path / METRICS, (0, 0))

    def hear(event: Event) -> None:
        for told in monitor.hear(event):
            sink.log(told)

    hear({"event": "start", "step": 0, "epoch": 0, "time": 0.0})
    hear(line(1))
    assert not (tmp_path / HEALTH).exists(), "a step is no time to judge"
    end = {"event": "end", "step": 20, "epoch": 2, "time": 0.0}
    failed = {"event": "failed", "step": 25, "epoch": 2, "time": 0.0, "where": "the loss spectral"}
    for event in (epoch(1, level__rms_ratio=2.0), rollback(5, 1), epoch(2, loss__total=math.nan), end, failed):
        (tmp_path / HEALTH).unlink(missing_ok=True)
        hear(event)
        written = json.loads((tmp_path / HEALTH).read_bytes())
        assert (written["step"], written["epoch"]) == (event["step"], event["epoch"])
        assert written == run_training("health", tmp_path, "--json").json
    assert written["red"] == ["non-finite"]
    assert {path.name for path in tmp_path.iterdir()} == {HEALTH, METRICS}, "nothing half-written is left"


def log(run_dir: Path, *events: Event) -> Path:
    """A run directory with these events."""
    run_dir.mkdir()
    sink = JsonLinesSink(run_dir / METRICS, (0, 0))
    for event in events:
        sink.log(event)
    return run_dir


def test_the_command_shows_every_rule_and_what_helps_with_the_red_ones(tmp_path: Path) -> None:
    run_dir = log(tmp_path / "run", *CALM, epoch(1, level__rms_ratio=0.7, agent__novelty=0.1))
    shown = run_training("health", run_dir)
    assert (shown.code, shown.err) == (1, "")
    assert "epoch 1, step 10" in shown.out.splitlines()[0]
    for name in NAMES:
        assert name in shown.out
    words = " ".join(shown.out.split())
    assert "0.70 of the sources'" in words
    assert "raise losses.rms_input and losses.rms_target" in words
    assert "set losses.balance to 10" not in words, "what is not red needs no help"


def test_the_commands_exit_code_tells_whether_a_rule_is_red(tmp_path: Path) -> None:
    well = log(tmp_path / "well", *CALM, epoch(1, level__rms_ratio=1.0))
    assert run_training("health", well).code == 0
    shown = run_training("health", well, "--json")
    assert shown.code == 0
    assert shown.json["red"] == []
    begun = log(tmp_path / "begun", {"event": "start", "step": 0, "epoch": 0, "time": 0.0})
    assert run_training("health", begun).code == 0
    ill = log(tmp_path / "ill", line(1, peak=1e6))
    assert run_training("health", ill, "--json").code == 1
    assert run_training("health", ill, "--json").json["red"] == ["gradient norm"]


def test_a_line_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    run_dir = log(tmp_path / "run", *CALM)
    with (run_dir / METRICS).open("ab") as file:
        file.write(b'{"event": "train", "st')
    assert run_training("health", run_dir).code == 0
    assert len(read_run(run_dir).lines) == len(CALM)


def test_what_is_no_run_is_misuse(tmp_path: Path) -> None:
    assert_one_line(run_training("health", tmp_path / "none"), 2, "none: there is no such run; give the --run-dir")
    assert_one_line(run_training("health", tmp_path), 2, "holds no metrics.jsonl")
    (tmp_path / "file").write_text("")
    assert_one_line(run_training("health", tmp_path / "file", "--json"), 2, "there is no such run")


DAMAGE = [
    b"{]\n",
    b"\xff\xfe\n",
    b"5\n",
    b"[]\n",
    b"null\n",
    b'{"event": "train"}\n',
    b'{"event": "epoch", "step": 1, "epoch": "one", "time": 0}\n',
    b'{"event": "epoch", "step": 1, "epoch": 1, "train": [1]}\n',
    b'{"event": "epoch", "step": 1, "epoch": 1, "dead": 5}\n',
    b'{"event": "failed", "step": 1, "epoch": 1}\n',
]


@pytest.mark.parametrize("damaged", DAMAGE)
def test_a_damaged_metrics_file_is_one_line_that_names_the_line(tmp_path: Path, damaged: bytes) -> None:
    run_dir = log(tmp_path / "run", *CALM)
    with (run_dir / METRICS).open("ab") as file:
        file.write(damaged)
    said = run_training("health", run_dir)
    assert_one_line(said, 1, "metrics.jsonl: line 11 is no event of a training; take it out")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("data") / "ds")


QUIET = [f"losses.{name}=0" for name in ("rms_target", "mask_regularisation", "balance", "modulation_correlation")]


def found(run_dir: Path) -> dict[str, dict[str, Any]]:
    """What `health.json` says, by rule."""
    return {one["rule"]: one for one in json.loads((run_dir / HEALTH).read_bytes())["rules"]}


def test_an_agent_that_no_loss_reaches_is_told_of(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = launch(dataset, run, "train.epochs=1", *QUIET, "losses.rms_input=1e-7")
    assert "health: agent gradients is red" in done.err
    assert "cut off from the loss" in done.err
    assert found(run)["agent gradients"]["verdict"] == "red"
    assert done.code == 0, "it is no severe one"
    assert "health: red at the end: " in done.out
    assert run_training("health", run).code == 1


def test_weights_that_the_loss_does_not_reach_are_named(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    launch(dataset, run, "train.epochs=1", *QUIET, "losses.rms_input=0", "losses.mask_regularisation=0.1")
    (told,) = [event["dead"] for event in events(run, "epoch")]
    names = [name for name, _ in load_model(run / "checkpoints" / "last").named_parameters()]
    assert told == [name for name in names if name.startswith("stages.")]
    assert found(run)["dead parameters"]["verdict"] == "red"
    assert found(run)["agent gradients"]["verdict"] == "green"


def test_a_healthy_run_has_no_dead_weights_and_its_gradients_are_looked_at_when_it_tells_of_them(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, look = [], Step.gradient_peaks

    def counted(step: Step) -> dict[str, float]:
        looks.append(step)
        return look(step)

    monkeypatch.setattr(Step, "gradient_peaks", counted)
    assert launch(dataset, tmp_path / "run", "train.epochs=2", "train.log_steps=3").code == 0
    assert len(looks) == len(events(tmp_path / "run", "train")) == 4, "at steps 3, 4, 6 and 8"
    assert [event["dead"] for event in events(tmp_path / "run", "epoch")] == [[], []]
    verdicts = {rule: one["verdict"] for rule, one in found(tmp_path / "run").items()}
    assert verdicts["non-finite"] == verdicts["dead parameters"] == verdicts["agent gradients"] == "green"
    assert verdicts["novelty"] == verdicts["GAN"] == "unknown"


def test_a_severe_rule_that_stands_at_the_end_makes_a_launch_fail(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = launch(dataset, run, "train.epochs=1", "losses.rms_input=1e7", extra=["--json"])
    assert done.code == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert "run: trained, but red at the end: gradient norm (at most " in line
    assert "its checkpoints can be used, and `python -m training health " in line
    assert "gradient norm" in done.json["red"]
    assert done.json["epoch"] == 1
    load_model(run / "checkpoints" / "best")
    again = launch(dataset, run, "train.epochs=1", "losses.rms_input=1e7")
    assert again.code == 1, "launched again it has nothing to do, and stands where it stood"
    assert launch(dataset, run, "train.epochs=2").code == 0, "an epoch that went well mends it"


def test_a_run_whose_metrics_are_gone_can_be_looked_at_and_launched(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    launch(dataset, run, "train.epochs=1")
    (run / METRICS).unlink()
    assert launch(dataset, run, "train.epochs=1").code == 0
    assert_one_line(run_training("health", run), 2, "holds no metrics.jsonl")

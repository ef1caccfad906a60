"""What a run tells, and to whom: one truthful MLflow run a training, whatever happens to MLflow or to the training."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command import Outcome, assert_one_line, run_training
from make_data import make_dataset

from shards import open_dataset
from shards.errors import Interrupted
from shards.settings import load_settings
from training import outbox
from training.about import describe_training
from training.config import Config
from training.events import Event, MemorySink, metrics_of, read_events
from training.outbox import Outbox
from training.runtime import Runtime
from training.tracking import About, MlflowMirror, MlflowRun, TrackingConfig, tracked
from training.worker import WorkerSpec, train_rank

ALONE = Runtime(0, 1, torch.device("cpu"))

pytest.importorskip("mlflow")

ROOT = Path(__file__).parents[1]
SMALL = (
    "model.cascade.layers=1",
    "model.cascade.feedforward=1",
    "model.masking.channels=16",
    "data.batch_size=2",
    "train.audio_crop_seconds=0.25",
    "train.log_steps=1",
    "tracking.samples=1",
)
TINY = (*SMALL, "model.agent=none", "model.cascade.stages=1", "losses.modulation_correlation=0")
"""Of which a checkpoint takes next to no time: for what does not depend on the model."""
ABOUT = About({"a": "1"}, {"version.torch": "2"}, "model: {}\n", ("ds", "f" * 64, "/data/ds"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "ds", {"train": [5, 3], "val": [3]})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: making one takes longer than a training here."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(scope="module", autouse=True)
def _impatient() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
        patch.setattr(outbox, "PERIOD", 0.05)
        patch.setattr(outbox, "RETRY", 0.1)
        yield


@pytest.fixture(scope="module")
def client(store: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store)


def options(dataset: Path, run_dir: Path, store: str, *overrides: str) -> list[str]:
    sets = [part for override in (f"tracking.store={store}", *overrides) for part in ("--set", override)]
    return ["launch", "--shards", str(dataset), "--run-dir", str(run_dir), "--local", *sets]


def launch(dataset: Path, run_dir: Path, store: str, *overrides: str, model: Sequence[str] = TINY) -> Outcome:
    return run_training(*options(dataset, run_dir, store, *model, *overrides))


def find_run(client: Any, run_dir: Path) -> Any:
    """The one run of a run directory."""
    run_id = json.loads((run_dir / "run.json").read_text())["run_id"]
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    named = [run for run in client.search_runs(experiments) if run.info.run_name.startswith(f"{run_dir.name}-")]
    assert [run.info.run_id for run in named] == [run_id], "one run a training"
    return named[0]


def history(client: Any, run: Any, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]


@pytest.fixture(scope="module")
def trained(dataset: Path, store: str, client: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of four steps with a GAN, which is dead on arrival: its rate is next to nothing."""
    run_dir = tmp_path_factory.mktemp("runs") / "trained"
    gan = ("losses.gan=0.1", "discriminator.learning_rate=1e-12")
    done = launch(dataset, run_dir, store, "train.epochs=2", *gan, model=SMALL)
    assert done.code == 0, done
    return run_dir


def test_the_run_says_what_was_trained_on_what_with_which_code(trained: Path, dataset: Path, client: Any) -> None:
    run = find_run(client, trained)
    assert run.info.status == "FINISHED"
    manifest = open_dataset(dataset).manifest
    assert run.data.params["dataset"] == manifest.fingerprint
    assert run.data.params["codec"] == "mdct"
    assert run.data.params["losses.gan"] == "0.1"
    (data,) = run.inputs.dataset_inputs
    assert manifest.fingerprint.startswith(data.dataset.digest)
    assert run.data.tags["version.torch"].startswith("2.")
    if "version.commit" in run.data.tags:
        assert run.data.tags["mlflow.source.git.commit"] == run.data.tags["version.commit"]
    config = Path(client.download_artifacts(run.info.run_id, "config.yaml")).read_text()
    written = (trained / "config.yaml").read_text()
    assert [line for line in written.splitlines() if line not in config.splitlines()] == [
        f"  store: {json.loads((trained / 'run.json').read_text())['store']}"
    ]


def test_mlflow_has_every_number_that_the_run_told(trained: Path, client: Any) -> None:
    run = find_run(client, trained)
    told: dict[str, list[tuple[int, float]]] = {}
    for event, _ in read_events(trained / "metrics.jsonl"):
        for name, value in metrics_of(event).items():
            told.setdefault(name, []).append((event["step"], value))
    assert {
        "loss/rms_input",
        "weighted/rms_input",
        "val/loss/total",
        "agent/complementarity",
        "gan/real_accuracy",
        "gradient/agent",
        "gradient/stage_0",
        "gradient/stage_1",
        "optimizer/learning_rate",
        "speed/pairs_per_second",
        "speed/wait_fraction",
        "memory/peak_mb",
    } <= told.keys()
    for name, points in told.items():
        assert history(client, run, name) == points, name
    assert told["optimizer/learning_rate"] == [(step, pytest.approx(1e-4)) for step in range(1, 9)]
    weights = dict(told["loss/rms_input"])
    assert all(value == pytest.approx(0.3 * weights[step]) for step, value in told["weighted/rms_input"])
    assert run.data.metrics["system/system_memory_usage_megabytes"] > 0


def test_mlflow_keeps_audio_pictures_and_health(trained: Path, client: Any) -> None:
    run = find_run(client, trained)
    root = Path(client.download_artifacts(run.info.run_id, ""))
    kept = {file.relative_to(root) for file in root.rglob("*") if file.is_file()}
    written = {file.relative_to(trained) for file in (trained / "samples").rglob("*.*")}
    assert kept == written | {Path("config.yaml"), Path("health.json")}
    for file in written:
        assert (root / file).read_bytes() == (trained / file).read_bytes()
    assert sum(file.suffix == ".wav" for file in kept) == 3


def test_health_is_among_the_tags(trained: Path, client: Any) -> None:
    tags = find_run(client, trained).data.tags
    red = {rule["rule"]: rule for rule in json.loads((trained / "health.json").read_text())["rules"]}
    red = {name: rule for name, rule in red.items() if rule["verdict"] == "red"}
    assert "GAN" in red, "nobody learns at that rate"
    assert tags["health"] == "red"
    assert tags["health.red"] == ", ".join(red)
    rules = {name.removeprefix("health.rule."): tags[name] for name in tags if name.startswith("health.rule.")}
    assert rules == {name: f"{rule['value']}; {rule['mend']}" for name, rule in red.items()}


class Bomb:
    """A sink that ends the training with an error once it hears of a step."""

    def __init__(self, step: int, error: BaseException) -> None:
        self._step, self._error = step, error

    def log(self, event: Event) -> None:
        if event["step"] == self._step:
            raise self._error

    def close(self) -> None:
        pass


def train(dataset: Path, run_dir: Path, store: str, *overrides: str, watching: Sequence[Any] = ()) -> None:
    """What a launch does, with somebody watching."""
    options = ["tracking.sample_epochs=null", f"tracking.store={store}", *overrides]
    config = load_settings(Config, None, [*TINY, *options])
    run_dir.mkdir(exist_ok=True)
    with tracked(config.tracking, run_dir, describe_training(config, open_dataset(dataset), 1, None)) as run:
        train_rank(WorkerSpec(config, str(dataset), run_dir, None, None, run), ALONE, watching)


def test_steps_that_are_taken_again_are_in_mlflow_once(dataset: Path, store: str, client: Any, tmp_path: Path) -> None:
    run_dir = tmp_path / "lost"
    saving = ("train.epochs=2", "train.checkpoint_steps=3")
    with pytest.raises(RuntimeError, match="bang"):
        train(dataset, run_dir, store, *saving, watching=[Bomb(6, RuntimeError("bang"))])
    run = find_run(client, run_dir)
    assert run.info.status == "FAILED"
    first = history(client, run, "loss/total")
    assert [step for step, _ in first] == [1, 2, 3, 4, 5, 6]
    train(dataset, run_dir, store, *saving)
    assert find_run(client, run_dir).info.status == "FINISHED"
    for metric, steps in (("loss/total", list(range(1, 9))), ("speed/pairs_per_second", list(range(1, 9)))):
        assert [step for step, _ in history(client, run, metric)] == steps
    assert [step for step, _ in history(client, run, "val/loss/total")] == [4, 8]
    assert history(client, run, "loss/total")[:6] == first
    losses = [(e["step"], e["loss/total"]) for e, _ in read_events(run_dir / "metrics.jsonl") if e["event"] == "train"]
    assert history(client, run, "loss/total") == losses, "the same steps, the same numbers"


def test_a_resume_goes_on_in_the_same_run_and_says_what_it_changed(
    dataset: Path, store: str, client: Any, tmp_path: Path
) -> None:
    run_dir = tmp_path / "longer"
    assert launch(dataset, run_dir, store, "train.epochs=1", "tracking.sample_epochs=null").code == 0
    before = find_run(client, run_dir)
    assert launch(dataset, run_dir, store, "train.epochs=2", "tracking.sample_epochs=null").code == 0
    after = find_run(client, run_dir)
    assert after.info.status == "FINISHED"
    assert after.info.start_time == before.info.start_time
    assert after.info.end_time > before.info.end_time
    assert after.data.params["train.epochs"] == "1"
    assert after.data.tags["changed.train.epochs"] == "1 -> 2"
    assert [step for step, _ in history(client, after, "loss/total")] == list(range(1, 9))
    steps = [step for step, _ in history(client, after, "system/cpu_utilization_percentage")]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (Interrupted("stopped", 143), "KILLED"),
        (KeyboardInterrupt(), "KILLED"),
        (OSError("disk full"), "FAILED"),
    ],
)
def test_a_run_ends_as_the_training_did(
    store: str, client: Any, tmp_path: Path, error: BaseException | None, status: str
) -> None:
    run_dir = tmp_path / f"{status.lower()}-{type(error).__name__}"
    run_dir.mkdir()
    settings = TrackingConfig(store=store)
    with pytest.raises(type(error)) if error else nullcontext(), tracked(settings, run_dir, ABOUT):
        assert find_run(client, run_dir).info.status == "RUNNING"
        if error is not None:
            raise error
    assert find_run(client, run_dir).info.status == status


def test_a_change_is_told_as_long_as_it_holds(store: str, client: Any, tmp_path: Path) -> None:
    run_dir = tmp_path / "changing"
    run_dir.mkdir()
    for value, told in (("1", None), ("2", "1 -> 2"), ("3", "1 -> 3"), ("1", None)):
        with tracked(TrackingConfig(store=store), run_dir, replace(ABOUT, params={"a": value})):
            pass
        assert find_run(client, run_dir).data.tags.get("changed.a") == told


def test_a_run_that_somebody_deleted_is_made_anew_and_gets_the_history(
    dataset: Path, store: str, client: Any, tmp_path: Path
) -> None:
    run_dir = tmp_path / "deleted"
    train(dataset, run_dir, store, "train.epochs=1")
    client.delete_run(find_run(client, run_dir).info.run_id)
    train(dataset, run_dir, store, "train.epochs=2")
    assert [step for step, _ in history(client, find_run(client, run_dir), "loss/total")] == list(range(1, 9))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Bound and not listening: nobody answers there, and nobody else can."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield closed.getsockname()[1]


def test_a_store_that_does_not_answer_is_one_line_before_anything_starts(
    dataset: Path, tmp_path: Path, closed_port: int
) -> None:
    outcome = launch(dataset, tmp_path / "run", f"http://me:secret@127.0.0.1:{closed_port}")
    assert_one_line(
        outcome,
        1,
        f"MLflow's store http://127.0.0.1:{closed_port} can't be used: Connection refused; start it",
        "--set tracking.mlflow=off",
    )
    assert "secret" not in outcome.err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("store", "cause"), [("gibberish://x", "unsupported URI"), ("sqlite:////dev/null/x.db", "File exists")]
)
def test_a_store_that_is_none_is_one_line(dataset: Path, tmp_path: Path, store: str, cause: str) -> None:
    assert_one_line(launch(dataset, tmp_path / "run", store), 1, store, cause, "--set tracking.store=")


def test_mlflow_may_go_away_and_the_training_goes_on(dataset: Path, tmp_path: Path, closed_port: int) -> None:
    config = load_settings(Config, None, [*TINY, "train.epochs=2", "tracking.sample_epochs=null"])
    gone = MlflowRun(f"http://127.0.0.1:{closed_port}", "0" * 32)
    told = MemorySink()
    train_rank(WorkerSpec(config, str(dataset), tmp_path, None, None, gone), ALONE, [told])
    events = [event for event, _ in read_events(tmp_path / "metrics.jsonl")]
    assert [event["step"] for event in events if event["event"] == "train"] == list(range(1, 9))
    (warning,) = [event for event in events if event["event"] == "warning"]
    assert f"MLflow at http://127.0.0.1:{closed_port} fails (Connection refused)" in warning["text"]
    assert "\n" not in warning["text"]
    assert [event for event in events if event["event"] != "warning"] == told.events


def at(kind: str, step: int, when: float, **content: Any) -> Event:
    return {"event": kind, "step": step, "epoch": 0, "time": when, **content}


@pytest.fixture
def mirrored(store: str, tmp_path: Path) -> Iterator[tuple[MlflowRun, Path]]:
    """An empty run that goes on."""
    with tracked(TrackingConfig(store=store, experiment="mirrors"), tmp_path, ABOUT) as run:
        assert run is not None
        yield run, tmp_path


def test_steps_after_a_roll_back_are_others(mirrored: tuple[MlflowRun, Path], client: Any) -> None:
    run, run_dir = mirrored
    unsound = [at("train", step, 10.0 + step, **{"loss/total": float(step)}) for step in (1, 2, 3)]
    back = at("rollback", 1, 20.0)
    sound = [at("train", step, 20.0 + step, **{"loss/total": step / 2}) for step in (2, 3)]
    MlflowMirror(run, run_dir).send([*unsound, back, *sound])
    lost = [at("train", 4, 24.0, **{"loss/total": 2.0})]
    MlflowMirror(run, run_dir).send(lost)
    expected = [(1, 1.0), (2, 2.0), (3, 3.0), (2, 1.0), (3, 1.5), (4, 2.0)]
    assert history(client, client.get_run(run.run_id), "loss/total") == expected
    # The next process has the steps up to the third as its past, and takes the fourth again.
    mirror = MlflowMirror(run, run_dir)
    mirror.send([*unsound, back, *sound])
    mirror.send([at("train", 4, 34.0, **{"loss/total": 2.0}), at("train", 5, 35.0, **{"loss/total": 2.5})])
    assert history(client, client.get_run(run.run_id), "loss/total") == [*expected, (5, 2.5)]


def test_a_rule_that_is_green_again_loses_its_tag(mirrored: tuple[MlflowRun, Path], client: Any) -> None:
    run, run_dir = mirrored

    def health() -> dict[str, str]:
        tags = client.get_run(run.run_id).data.tags
        return {name: value for name, value in tags.items() if name.startswith("health")}

    MlflowMirror(run, run_dir).send([at("epoch", 1, 1.0, red={"novelty": "0.3; raise it", "GAN": "99%; change it"})])
    assert health() == {
        "health": "red",
        "health.red": "novelty, GAN",
        "health.rule.novelty": "0.3; raise it",
        "health.rule.GAN": "99%; change it",
    }
    later = MlflowMirror(run, run_dir)
    later.send([at("epoch", 2, 2.0, red={"GAN": "97%; change it"})])
    assert health() == {"health": "red", "health.red": "GAN", "health.rule.GAN": "97%; change it"}
    later.send([at("epoch", 3, 3.0, red={})])
    assert health() == {"health": "green", "health.red": "none"}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_outbox_keeps_what_is_not_taken_and_complains_once() -> None:
    taken: list[int] = []
    complaints: list[tuple[int, str]] = []
    tries = 0

    def send(events: Sequence[Event]) -> None:
        nonlocal tries
        tries += 1
        if 3 <= tries <= 6:
            raise OSError(f"try {tries}")
        taken.extend(event["step"] for event in events)

    box = Outbox(send, lambda event, error: complaints.append((event["step"], str(error))), [at("train", 0, 0.0)])
    wait_for(lambda: taken == [0])
    box.log(at("train", 1, 1.0))
    wait_for(lambda: taken == [0, 1])
    for step in (2, 3):
        box.log(at("train", step, 2.0))
    wait_for(lambda: tries >= 5)
    box.log(at("train", 4, 3.0))
    box.close()
    assert taken[:2] == [0, 1]
    assert [text for _, text in complaints] == ["try 3"]
    if taken[2:]:  # the last try was after the sixth
        assert taken == [0, 1, 2, 3, 4]


def test_closing_an_outbox_sends_what_is_left() -> None:
    taken: list[int] = []
    box = Outbox(lambda events: taken.extend(event["step"] for event in events), lambda *_: None)
    for step in range(250):
        box.log(at("train", step, 0.0))
    box.close()
    assert taken == list(range(250))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_stopped_is_killed_until_it_goes_on(
    dataset: Path, store: str, client: Any, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    run_dir = tmp_path / f"stopped-{number.name}"
    endless = [*TINY, "train.epochs=100000", "train.patience=null", "tracking.sample_epochs=null"]
    command = [sys.executable, "-m", "training", *options(dataset, run_dir, store, *endless)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: any(event["step"] >= 7 for event, _ in read_events(run_dir / "metrics.jsonl")))
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == code, said
    run = find_run(client, run_dir)
    assert run.info.status == "KILLED"
    reached = history(client, run, "loss/total")
    assert [step for step, _ in reached] == list(range(1, len(reached) + 1))
    enough = f"train.epochs={len(reached) // 4 + 1}"
    assert launch(dataset, run_dir, store, enough, "tracking.sample_epochs=null").code == 0
    run = find_run(client, run_dir)
    assert run.info.status == "FINISHED"
    assert len(history(client, run, "loss/total")) == 4 * (len(reached) // 4 + 1)


@contextmanager
def mlflow_server(store: str, port: int) -> Iterator[None]:
    """A real server on loopback, ended by its process group."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--serve-artifacts", "--artifacts-destination"]
    folder = Path(store.removeprefix("sqlite:///")).parent
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        [*command, str(folder / "served")],
        env=os.environ | quiet,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:

        def answers() -> bool:
            assert server.poll() is None, "the server did not start"
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return True
            return False

        wait_for(answers)
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


class Aloud:
    """A sink that does something when it hears of a step."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self._step, self._act = step, act

    def log(self, event: Event) -> None:
        if event["event"] == "train" and event["step"] == self._step:
            self._act()

    def close(self) -> None:
        pass


@pytest.mark.slow
def test_a_server_that_comes_and_goes_has_the_whole_run_in_the_end(dataset: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store, address, run_dir = f"sqlite:///{tmp_path / 'served.db'}", f"http://127.0.0.1:{port}", tmp_path / "run"
    client = MlflowClient(tracking_uri=address)
    options = ("tracking.sample_epochs=1", "tracking.experiment=served")

    def warnings() -> int:
        return sum(event["event"] == "warning" for event, _ in read_events(run_dir / "metrics.jsonl"))

    def steps() -> list[int]:
        return [step for step, _ in history(client, find_run(client, run_dir), "loss/total")]

    with ExitStack() as first, ExitStack() as second:
        first.enter_context(mlflow_server(store, port))

        def come_back() -> None:
            wait_for(lambda: warnings() == 1)
            second.enter_context(mlflow_server(store, port))
            wait_for(lambda: steps() == [1, 2, 3, 4, 5])

        watching = [Aloud(3, first.close), Aloud(5, come_back), Aloud(7, second.close)]
        train(dataset, run_dir, address, "train.epochs=2", *options, watching=watching)
    told = [event["step"] for event, _ in read_events(run_dir / "metrics.jsonl") if event["event"] == "train"]
    assert told == list(range(1, 9)), "the training has not noticed"
    assert warnings() == 1, "what fails again is told once"
    with mlflow_server(store, port):
        assert find_run(client, run_dir).info.status == "RUNNING", "nobody could say that it had ended"
        assert 8 not in steps()
        train(dataset, run_dir, address, "train.epochs=3", *options)
        run = find_run(client, run_dir)
        assert run.info.status == "FINISHED"
        assert steps() == list(range(1, 13))
        assert [step for step, _ in history(client, run, "val/loss/total")] == [4, 8, 12]
        kept = {entry.path for entry in client.list_artifacts(run.info.run_id, "samples")}
        assert kept == {f"samples/{folder}" for folder in ("sources", "epoch_0001", "epoch_0002", "epoch_0003")}

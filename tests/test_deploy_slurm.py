"""The batch scripts for SLURM, run for real; only SLURM's own commands and Ray's starter are stand-ins."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from command import run_pipeline
from slurm import SCRIPTS, Slurm
from tiny_training import (
    ENDLESS,
    PATIENCE_SECONDS,
    steps_told,
    tiny_dataset,
    tiny_options,
    until,
    until_it_trains,
)

from shards.audit import verify
from training.checkpoint import open_checkpoint

PAIRS = 56
"""Of 8 recordings of 8 s, each window with the next one."""
GIVEN = {
    "encode.sbatch": {"PAIRS": "pairs.jsonl", "DATASET": "dataset"},
    "train.sbatch": {"SHARDS": "dataset", "RUN_DIR": "run"},
}


@pytest.fixture(params=GIVEN)
def slurm(request: pytest.FixtureRequest, tmp_path: Path) -> Slurm:
    """A job of either script."""
    return Slurm(request.param, tmp_path)


@pytest.fixture
def encoding(tmp_path: Path) -> Slurm:
    return Slurm("encode.sbatch", tmp_path)


@pytest.fixture
def training(tmp_path: Path) -> Slurm:
    return Slurm("train.sbatch", tmp_path)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Windows of a second: more shards than a job makes before the test stops it."""
    folder = tmp_path_factory.mktemp("slurm")
    assert run_pipeline("synthesize", folder / "wav", "--pairs", 4, "--seconds", 8).code == 0
    cut = ["--mode", "continuation", "--seconds", 1]
    assert run_pipeline("pair", folder / "wav", "--out", folder / "pairs.jsonl", *cut).code == 0
    return folder / "pairs.jsonl"


def options(samples_per_shard: int) -> str:
    return f"--codec mdct --local --set output.samples_per_shard={samples_per_shard}"


@pytest.mark.slow
def test_the_time_limits_signal_stops_the_encoder_and_the_next_run_goes_on(
    encoding: Slurm, pairs: Path, tmp_path: Path
) -> None:
    """The first run is one of three nodes, the second one of one node."""
    dataset, partial = tmp_path / "dataset", tmp_path / "dataset.partial"
    job = encoding.start(3, PAIRS=pairs, DATASET=dataset, ENCODE_OPTIONS=options(1))
    until(lambda: list(partial.glob("receipts/*.json")), job)
    encoder = int((encoding.ray_folder / "job.pid").read_text())
    os.kill(encoder, signal.SIGSTOP)  # so that it can't finish meanwhile
    job.send_signal(signal.SIGUSR1)
    until(lambda: "stopping on USR1" in encoding.errors, job)
    os.kill(encoder, signal.SIGCONT)
    assert job.wait(PATIENCE_SECONDS) == 143
    assert encoding.said("scontrol")[-1] == f"requeue {encoding.job_id}"
    assert partial.exists()
    assert not dataset.exists()
    assert not encoding.ray_folder.exists()
    assert encoding.run(PAIRS=pairs, DATASET=dataset, ENCODE_OPTIONS=options(1), SLURM_RESTART_COUNT=1) == 0
    kept = re.search(r"\((\d+) kept from before\)", encoding.output)
    assert kept is not None
    assert 0 < int(kept[1]) < PAIRS
    audit = verify(dataset, "sha256")
    assert (audit.problems, audit.samples) == ((), PAIRS)


@pytest.mark.slow
def test_the_time_limits_signal_stops_a_training_and_the_next_run_goes_on(training: Slurm, tmp_path: Path) -> None:
    """First with two of Ray's workers on one node, then on three nodes as one process."""
    run_dir, dataset = tmp_path / "run", tiny_dataset(tmp_path / "ds")
    given = {"SHARDS": dataset, "RUN_DIR": run_dir}
    job = training.start(**given, WORKERS=2, TRAIN_OPTIONS=" ".join(tiny_options(ENDLESS)))
    until_it_trains(run_dir, job)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(PATIENCE_SECONDS) == 143, training.errors
    assert training.said("scontrol") == [f"requeue {training.job_id}"]
    assert not training.ray_folder.exists()
    assert not (run_dir / "STOP").exists()
    saved = open_checkpoint(run_dir / "checkpoints" / "interrupted").progress
    assert f"goes on from epoch {saved.epoch}, step {saved.step}" in training.errors
    assert saved.step > 0

    last = " ".join(["--local", *tiny_options(saved.epoch + 1)])
    assert training.run(3, **given, WORKERS=1, TRAIN_OPTIONS=last, SLURM_RESTART_COUNT=1) == 0, training.errors
    steps = steps_told(run_dir)
    assert steps == list(range(1, steps[-1] + 1)), "each step is told once, in two runs"
    assert f"epoch {saved.epoch + 1}, step {steps[-1]}" in training.output


@pytest.mark.slow
def test_what_a_training_can_not_do_is_one_line_and_its_exit_code(training: Slurm, tmp_path: Path) -> None:
    given = {"SHARDS": tmp_path / "none", "RUN_DIR": tmp_path / "run"}
    for wrong, code, error in [
        ("--local", 1, f"error: {tmp_path / 'none'}: there is no such dataset"),
        ("--local --set train.epoch=3", 2, "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
    ]:
        assert training.run(**given, TRAIN_OPTIONS=wrong) == code
        assert error in training.errors
        assert training.errors.count("\n") == 1
    assert training.said("scontrol") == []
    assert not (tmp_path / "run").exists()


STUBBORN = """
    trap 'echo >> "$LOG/asked"; (( $(wc --lines < "$LOG/asked") < PATIENCE )) || exit 143' TERM
    touch "$LOG/began"
    while :; do sleep 0.05; done"""


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("patience", [1, 2])
def test_the_work_is_asked_to_stop_and_after_the_grace_made_to(
    slurm: Slurm, tmp_path: Path, number: signal.Signals, patience: int
) -> None:
    """Only the time limit's signal queues the job again: what a person cancelled must not come back.

    The encoder stops at once when it is asked again. The training waits for its workers, and is killed.
    """
    slurm.stand_in("venv/bin/python", STUBBORN)
    grace = 0.3 if patience == 2 else PATIENCE_SECONDS
    job = slurm.start(**GIVEN[slurm.script], GRACE_SECONDS=grace, PATIENCE=patience)
    until((tmp_path / "began").exists, job)
    job.send_signal(number)
    killed = patience == 2 and slurm.script == "train.sbatch"
    assert job.wait(PATIENCE_SECONDS) == (137 if killed else 143)
    assert len(slurm.said("asked")) == (1 if killed else patience)
    assert slurm.said("scontrol") == ([f"requeue {slurm.job_id}"] if number == signal.SIGUSR1 else [])
    assert not slurm.ray_folder.exists()


def test_several_nodes_start_ray_together_and_encode_on_the_first(encoding: Slurm, pairs: Path, tmp_path: Path) -> None:
    given = {"PAIRS": pairs, "DATASET": tmp_path / "dataset", "ENCODE_OPTIONS": options(40), "SLURM_GPUS_ON_NODE": 4}
    assert encoding.run(3, **given) == 0, encoding.errors
    assert verify(tmp_path / "dataset", "sha256").problems == ()
    encode = ["python", "-m", "pipeline", "encode", str(pairs), "--out", str(tmp_path / "dataset")]
    assert started_by_ray(encoding) == [*encode, *options(40).split()]


@pytest.mark.parametrize(
    ("variables", "workers"),
    [
        ({"SLURM_GPUS_ON_NODE": 4}, "12"),
        ({}, "3"),
        ({"SLURM_GPUS_ON_NODE": 4, "WORKERS": "4:12"}, "4:12"),
    ],
)
def test_a_training_takes_every_gpu_of_its_nodes_or_every_node(
    training: Slurm, variables: dict[str, object], workers: str
) -> None:
    training.stand_in("venv/bin/python", "exit 0")
    given = {**GIVEN["train.sbatch"], "TRAIN_OPTIONS": "--config masking", **variables}
    assert training.run(3, **given) == 0, training.errors
    launch = f"python -m training launch --shards dataset --run-dir run --workers {workers} --config masking"
    assert started_by_ray(training, variables.get("SLURM_GPUS_ON_NODE", 0)) == launch.split()


def started_by_ray(slurm: Slurm, gpus: object = 4) -> list[str]:
    """The command that Ray's head was given, on three nodes that start Ray together."""
    assert slurm.said("scontrol") == ["show hostnames node-[a-c]"]
    assert slurm.said("srun")[:4] == ["--nodes=3", "--ntasks=3", "--ntasks-per-node=1", "--cpus-per-task=48"]
    ray = slurm.said("ray")
    start, command = ray[: ray.index("--")], ray[ray.index("--") + 1 :]
    assert " ".join(start) == f"symmetric-run --address node-a:6379 --min-nodes 3 --num-cpus 48 --num-gpus {gpus}"
    # Without the address, the command would start a Ray of its own.
    place = command.index("env")
    assert command[place + 1] == "RAY_ADDRESS=node-a:6379"
    assert not slurm.ray_folder.exists()
    return command[place + 2 :]


def test_a_ray_that_does_not_start_is_no_success(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "no-ray").touch()
    assert slurm.run(3, **GIVEN[slurm.script]) == 1
    assert slurm.errors.startswith("error: the work was not begun; the lines above say ")
    assert slurm.errors.count("\n") == 1
    assert slurm.said("scontrol") == ["show hostnames node-[a-c]"]


def test_a_failure_of_the_work_is_the_jobs_and_is_not_queued_again(slurm: Slurm) -> None:
    slurm.stand_in("venv/bin/python", "exit 2")
    assert slurm.run(**GIVEN[slurm.script]) == 2
    assert slurm.said("scontrol") == []


def test_what_is_missing_is_one_line(slurm: Slurm) -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        *(({name: ""}, f"error: {name} is not set; name ") for name in GIVEN[slurm.script]),
        ({"VENV": "nowhere"}, "error: nowhere/bin/python: there is no such program; run `make setup`"),
        ({"cwd": Path("/")}, "error: / holds no deploy/slurm; submit from "),
    ]
    for missing, error in wrong:
        given: dict[str, object] = {**GIVEN[slurm.script], **missing}
        assert slurm.run(**given) == 2
        assert slurm.errors.startswith(error)
        assert slurm.errors.count("\n") == 1


@pytest.mark.parametrize("script", GIVEN)
def test_slurm_reads_all_that_the_script_asks_of_it(script: str) -> None:
    """SLURM stops at the first line that is no comment; `ray stop` would end other jobs' Rays on the node."""
    lines = (SCRIPTS / script).read_text().splitlines()
    command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    asked = [line.removeprefix("#SBATCH ") for line in lines[:command] if line.startswith("#SBATCH ")]
    assert {"--signal=B:USR1@600", "--requeue", "--exclusive", "--ntasks-per-node=1"} <= set(asked)
    assert not any(line.startswith("#SBATCH") for line in lines[command:])
    assert not any("ray stop" in path.read_text() for path in SCRIPTS.iterdir())

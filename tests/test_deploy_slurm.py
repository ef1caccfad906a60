"""The batch script for SLURM, run for real; only SLURM's own commands and Ray's starter are stand-ins."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from command import run_pipeline
from deployment import ROOT

from shards.audit import verify

SCRIPT = ROOT / "deploy" / "slurm" / "encode.sbatch"
PATIENCE_SECONDS = 60
PAIRS = 56
"""Of 8 recordings of 8 s, each window with the next one."""

STAND_INS = {
    "bin/scontrol": """
        echo "$*" >> "$LOG/scontrol"
        [[ $1 != show ]] || printf '%s\\n' node-a node-b node-c""",
    # One task only, that of the first node: Ray's head.
    "bin/srun": """
        printf '%s\\n' "$@" > "$LOG/srun"
        while [[ $1 == --* ]]; do shift; done
        SLURM_NODEID=0 exec "$@" """,
    "venv/bin/ray": """
        printf '%s\\n' "$@" > "$LOG/ray"
        [[ ! -e $LOG/no-ray ]] || exit 0
        while [[ $1 != -- ]]; do shift; done
        shift
        exec "$@" """,
    "venv/bin/python": f"""
        exec {sys.executable} "$@" """,
}


@dataclass
class Slurm:
    """Runs the script as SLURM would, for one job of its own."""

    folder: Path
    job_id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def __post_init__(self) -> None:
        for name, text in STAND_INS.items():
            self.stand_in(name, text)

    @property
    def ray_folder(self) -> Path:
        return Path(f"/tmp/ray-{self.job_id}-0")

    @property
    def errors(self) -> str:
        return (self.folder / "stderr").read_text()

    def stand_in(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/usr/bin/env bash\n" + text)
        path.chmod(0o755)

    def said(self, command: str) -> list[str]:
        """What a stand-in was called with, a line for each argument, or for each call of scontrol."""
        path = self.folder / command
        return path.read_text().splitlines() if path.exists() else []

    def start(self, nodes: int = 1, cwd: Path = ROOT, **variables: object) -> subprocess.Popen[bytes]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "RAY"))},
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "VENV": str(self.folder / "venv"),
            "LOG": str(self.folder),
            "SLURM_JOB_ID": self.job_id,
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_JOB_NODELIST": "node-[a-c]",
            "SLURM_CPUS_ON_NODE": "48",
            **{name: str(value) for name, value in variables.items()},
        }
        with (self.folder / "stdout").open("wb") as out, (self.folder / "stderr").open("wb") as errors:
            return subprocess.Popen(["bash", str(SCRIPT)], cwd=cwd, env=environment, stdout=out, stderr=errors)

    def run(self, nodes: int = 1, cwd: Path = ROOT, **variables: object) -> int:
        return self.start(nodes, cwd, **variables).wait(PATIENCE_SECONDS)


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    return Slurm(tmp_path)


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


def until(happened: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Wait for something that a running process does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_the_time_limits_signal_stops_the_encoder_and_the_next_run_goes_on(
    slurm: Slurm, pairs: Path, tmp_path: Path
) -> None:
    """The first run is one of three nodes, the second one of one node."""
    dataset, partial = tmp_path / "dataset", tmp_path / "dataset.partial"
    job = slurm.start(3, PAIRS=pairs, DATASET=dataset, ENCODE_OPTIONS=options(1))
    until(lambda: list(partial.glob("receipts/*.json")), job)
    encoder = int((slurm.ray_folder / "encode.pid").read_text())
    os.kill(encoder, signal.SIGSTOP)  # so that it can't finish meanwhile
    job.send_signal(signal.SIGUSR1)
    until(lambda: "stopping on USR1" in slurm.errors, job)
    os.kill(encoder, signal.SIGCONT)
    assert job.wait(PATIENCE_SECONDS) == 143
    assert slurm.said("scontrol")[-1] == f"requeue {slurm.job_id}"
    assert partial.exists()
    assert not dataset.exists()
    assert not slurm.ray_folder.exists()
    assert slurm.run(PAIRS=pairs, DATASET=dataset, ENCODE_OPTIONS=options(1), SLURM_RESTART_COUNT=1) == 0
    kept = re.search(r"\((\d+) kept from before\)", (tmp_path / "stdout").read_text())
    assert kept is not None
    assert 0 < int(kept[1]) < PAIRS
    audit = verify(dataset, "sha256")
    assert (audit.problems, audit.samples) == ((), PAIRS)


STUBBORN = """
    trap 'echo >> "$LOG/asked"; (( $(wc --lines < "$LOG/asked") < PATIENCE )) || exit 143' TERM
    touch "$LOG/began"
    while :; do sleep 0.05; done"""


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("patience", [1, 2])
def test_an_encoder_is_asked_to_stop_and_once_more_after_the_grace(
    slurm: Slurm, tmp_path: Path, number: signal.Signals, patience: int
) -> None:
    """Only the time limit's signal queues the job again: what a person cancelled must not come back."""
    slurm.stand_in("venv/bin/python", STUBBORN)
    grace = 0.3 if patience == 2 else PATIENCE_SECONDS
    job = slurm.start(PAIRS="pairs.jsonl", DATASET="dataset", GRACE_SECONDS=grace, PATIENCE=patience)
    until((tmp_path / "began").exists, job)
    job.send_signal(number)
    assert job.wait(PATIENCE_SECONDS) == 143
    assert len(slurm.said("asked")) == patience
    assert slurm.said("scontrol") == ([f"requeue {slurm.job_id}"] if number == signal.SIGUSR1 else [])
    assert not slurm.ray_folder.exists()


def test_several_nodes_start_ray_together_and_encode_on_the_first(slurm: Slurm, pairs: Path, tmp_path: Path) -> None:
    given = {"PAIRS": pairs, "DATASET": tmp_path / "dataset", "ENCODE_OPTIONS": options(40), "SLURM_GPUS_ON_NODE": 4}
    assert slurm.run(3, **given) == 0, slurm.errors
    assert verify(tmp_path / "dataset", "sha256").problems == ()
    assert slurm.said("scontrol") == ["show hostnames node-[a-c]"]
    assert slurm.said("srun")[:4] == ["--nodes=3", "--ntasks=3", "--ntasks-per-node=1", "--cpus-per-task=48"]
    ray = slurm.said("ray")
    start, command = ray[: ray.index("--")], ray[ray.index("--") + 1 :]
    assert " ".join(start) == "symmetric-run --address node-a:6379 --min-nodes 3 --num-cpus 48 --num-gpus 4"
    # Without the address, the encoder would start a Ray of its own.
    assert command[4:10] == ["env", "RAY_ADDRESS=node-a:6379", "python", "-m", "pipeline", "encode"]
    assert command[10:] == [str(pairs), "--out", str(tmp_path / "dataset"), *options(40).split()]
    assert not slurm.ray_folder.exists()


def test_a_ray_that_does_not_start_is_no_success(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "no-ray").touch()
    assert slurm.run(3, PAIRS="pairs.jsonl", DATASET=tmp_path / "dataset") == 1
    assert slurm.errors.startswith(f"error: {tmp_path / 'dataset'}: no dataset was made; ")
    assert slurm.errors.count("\n") == 1
    assert slurm.said("scontrol") == ["show hostnames node-[a-c]"]


def test_a_failure_of_the_encoder_is_the_jobs_and_is_not_queued_again(slurm: Slurm) -> None:
    slurm.stand_in("venv/bin/python", "exit 2")
    assert slurm.run(PAIRS="pairs.jsonl", DATASET="dataset") == 2
    assert slurm.said("scontrol") == []


@pytest.mark.parametrize(
    ("missing", "error"),
    [
        ({"PAIRS": ""}, "error: PAIRS is not set; name "),
        ({"DATASET": ""}, "error: DATASET is not set; name "),
        ({"VENV": "nowhere"}, "error: nowhere/bin/python: there is no such program; run `make setup`"),
        ({"cwd": Path("/")}, "error: / holds no pipeline; submit from "),
    ],
)
def test_what_is_missing_is_one_line(slurm: Slurm, missing: dict[str, str | Path], error: str) -> None:
    given: dict[str, str | Path] = {"PAIRS": "pairs.jsonl", "DATASET": "dataset", **missing}
    assert slurm.run(**given) == 2  # type: ignore[arg-type]
    assert slurm.errors.startswith(error)
    assert slurm.errors.count("\n") == 1


def test_slurm_reads_all_that_the_script_asks_of_it() -> None:
    """SLURM stops at the first line that is no comment; `ray stop` would end other jobs' Rays on the node."""
    lines = SCRIPT.read_text().splitlines()
    command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    asked = [line.removeprefix("#SBATCH ") for line in lines[:command] if line.startswith("#SBATCH ")]
    assert {"--signal=B:USR1@600", "--requeue", "--exclusive", "--ntasks-per-node=1"} <= set(asked)
    assert not any(line.startswith("#SBATCH") for line in lines[command:])
    assert "ray stop" not in SCRIPT.read_text()

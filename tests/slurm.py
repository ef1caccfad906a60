"""Runs the batch scripts as SLURM would; only SLURM's own commands and Ray's starter are stand-ins."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from deployment import ROOT
from tiny_training import PATIENCE_SECONDS

SCRIPTS = ROOT / "deploy" / "slurm"

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
    """One job of `deploy/slurm/<script>`, which may be run several times as the job is queued again."""

    script: str
    folder: Path
    job_id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def __post_init__(self) -> None:
        for name, text in STAND_INS.items():
            self.stand_in(name, text)

    @property
    def ray_folder(self) -> Path:
        return Path(f"/tmp/ray-{self.job_id}-0")

    @property
    def output(self) -> str:
        return (self.folder / "stdout").read_text()

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
        """Start the script, in a copy that lies elsewhere, as SLURM does."""
        copy = self.folder / "slurm_script"
        copy.write_bytes((SCRIPTS / self.script).read_bytes())
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
            return subprocess.Popen(["bash", str(copy)], cwd=cwd, env=environment, stdout=out, stderr=errors)

    def run(self, nodes: int = 1, cwd: Path = ROOT, **variables: object) -> int:
        return self.start(nodes, cwd, **variables).wait(PATIENCE_SECONDS)

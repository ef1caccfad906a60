"""What wrote a dataset: the commit of the code and the versions of the packages."""

from __future__ import annotations

import importlib.metadata
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from shards.schema import Build


def make_build(
    packages: Iterable[str], config: Mapping[str, object], versions: Mapping[str, str] | None = None
) -> Build:
    """Describe this code, the given packages and the configuration it runs under."""
    return Build(
        git_commit=git_commit(),
        versions={**(versions or {}), **{package: _version(package) for package in packages}},
        config=dict(config),
    )


def git_commit() -> str | None:
    """Name the commit of the code that runs; None outside a checkout."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"

"""What a training is, in the words in which people compare runs: parameters, versions, data."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from shards.build import make_build
from shards.dataset import Dataset, describe_codec
from shards.settings import dump_yaml
from training.config import Config
from training.tracking import About

PACKAGES = ("cascadence", "torch", "numpy", "ray", "mlflow")


def describe_training(config: Config, dataset: Dataset, workers: int, begun_from: Path | None) -> About:
    """Describe a training on a dataset, without `tracking.store`, which may hold a password."""
    manifest = dataset.manifest
    build = make_build(PACKAGES, {})
    params = flatten(config.model_dump(mode="json", exclude={"tracking"}))
    params |= {"dataset": manifest.fingerprint, "dataset.name": manifest.name, "codec": describe_codec(dataset.codec)}
    tags = {f"version.{package}": version for package, version in build.versions.items()}
    tags |= {"version.python": platform.python_version(), "mlflow.source.name": "python -m training launch"}
    if build.git_commit is not None:
        tags |= {"version.commit": build.git_commit, "mlflow.source.git.commit": build.git_commit}
    if begun_from is not None:
        tags["begun_from"] = str(begun_from)
    return About(
        params=params | {"workers": str(workers)},
        tags=tags,
        config=shown_config(config),
        dataset=(manifest.name, manifest.fingerprint, dataset.address),
    )


def shown_config(config: Config) -> str:
    """Write a configuration as YAML for anybody to see: without `tracking.store`, which may hold a password."""
    return dump_yaml(config.model_copy(update={"tracking": config.tracking.model_copy(update={"store": None})}))


def flatten(content: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Turn nested sections into dotted names with values as text."""
    flat: dict[str, str] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = str(value)
    return flat

"""The door to a Ray cluster: the one of a job or of RAY_ADDRESS, or a private one that ends with its process."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shards.errors import CascadenceError, MisuseError

OBJECT_STORE_BYTES = 200 << 20
"""Of a private cluster; latents and batches travel through files, so next to nothing lies in the store."""
ANSWER_SECONDS = 5
"""That a cluster has to take a connection."""
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it for what `ray job submit` runs."""


def connect_ray(processes: int = 1) -> Any:
    """Join the Ray cluster of the job or of RAY_ADDRESS, or start a private one; returns the `ray` module.

    A private one has a place for each of `processes`, even where there are fewer cores: without one Ray would wait for
    ever. Ray takes the signals for itself. Raises `CascadenceError` where nothing answers at RAY_ADDRESS, and
    `MisuseError` without Ray.
    """
    private = is_private()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call out
    # A private cluster listens on the network, so it gets a token that nobody else knows; in the environment, since a
    # token file would turn authentication on for later clusters here. A cluster that is joined says what it wants.
    os.environ.setdefault("RAY_AUTH_MODE", "token" if private else "disabled")
    if private:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError:
        raise MisuseError("ray is not installed; install cascadence[ray], or add --local") from None
    if not ray.is_initialized():
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if private:
            # `local`: a cluster of somebody else on this machine is not ours to load.
            options |= {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
            options |= {"num_cpus": max(os.cpu_count() or 1, processes)} if processes > 1 else {}
        else:
            _require_answer(os.environ["RAY_ADDRESS"])
        ray.init(**options)
    return ray


def is_private() -> bool:
    """Whether `connect_ray` starts a cluster of its own: this machine, and it does not grow."""
    return not os.environ.get("RAY_ADDRESS")


def require_lasting(path: Path, option: str) -> None:
    """Refuse a relative path for what a Ray job is to make: it would lie in the job's own copy of the code.

    Raises `MisuseError`.
    """
    if _JOB in os.environ and not path.is_absolute():
        raise MisuseError(
            f"{option} {path}: a job's own folder goes with the job; give an absolute path that all its machines see"
        )


def _require_answer(address: str) -> None:
    """See that something listens at `host:port`: Ray itself would try for many minutes, and say so at length."""
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        if place.port is not None:
            socket.create_connection((place.hostname, place.port), timeout=ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        raise CascadenceError(
            f"RAY_ADDRESS={address}: nothing answers there ({error}); correct it, or unset it for a private cluster"
        ) from error

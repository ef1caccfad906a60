"""One job at a time on one output: a second one is told so, and a dead one holds nothing for long."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from shards.errors import CascadenceError

LEASE = ".job.json"
LEASE_SECONDS = 120
"""A lease that was not renewed for so long belongs to a job that died."""
RENEWAL_SECONDS = 20
SETTLING_SECONDS = 0.5
"""Two jobs that begin at the same moment both write a lease; after this long both read who wrote last."""


@contextmanager
def claim_folder(folder: Path) -> Iterator[None]:
    """Hold a local output, by a lock beside it that the system frees when its process ends, however it ends.

    Raises `CascadenceError` where another process holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise CascadenceError(_taken(str(folder), "on this file system")) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def claim_url(files: Any, root: str, url: str) -> Iterator[None]:
    """Hold a remote output, by an object `.job.json` that is renewed while this process lives.

    Raises `CascadenceError` where another job's lease is fresh.
    """
    path, token = f"{root}/{LEASE}", uuid.uuid4().hex
    try:
        holder = _read_lease(files, path)
        _write_lease(files, f"{path}.try", token)  # whether anything can be written here at all
        files.rm_file(f"{path}.try")
    except Exception as error:  # each file system has errors of its own kind
        said = " ".join(str(error).split()) or type(error).__name__
        raise CascadenceError(
            f"{url}: can't be written to ({said}); check the address, the connection and your credentials"
        ) from error
    if holder and time.time() - float(holder["renewed"]) < LEASE_SECONDS:
        who = f"by process {holder['process']} on {holder['host']}"
        raise CascadenceError(
            f"{_taken(url, who)}; if that job is dead, its claim ends {LEASE_SECONDS} s after its last sign of life"
        )
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEWAL_SECONDS):
            with suppress(OSError):  # the next one may go through; the lease outlives a few
                _write_lease(files, path, token)

    _write_lease(files, path, token)
    time.sleep(SETTLING_SECONDS)
    holder = _read_lease(files, path)
    if not holder or holder["token"] != token:
        raise CascadenceError(_taken(url, "since a moment ago"))
    thread = threading.Thread(target=renew, name="claim-renewal", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(OSError):
            files.rm_file(path)


def _read_lease(files: Any, path: str) -> dict[str, Any] | None:
    files.invalidate_cache()
    try:
        content = json.loads(files.cat_file(path))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) and {"token", "renewed", "host", "process"} <= content.keys() else None


def _write_lease(files: Any, path: str, token: str) -> None:
    lease = {"token": token, "host": socket.gethostname(), "process": os.getpid(), "renewed": time.time()}
    files.pipe_file(path, json.dumps(lease).encode())


def _taken(output: str, who: str) -> str:
    return f"{output}: another encode job is at work here ({who}); wait for it, or stop it, or choose another --out"

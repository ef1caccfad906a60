"""Where a dataset's files lie: in a local folder, or behind an fsspec URL with a verified local cache. Its door."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

import fsspec
from filelock import FileLock

from shards.errors import CascadenceError, DamageError, DatasetError, MisuseError
from shards.files import atomic_file, sha256_bytes, sha256_file, write_bytes
from shards.manifest import MANIFEST, STATISTICS, index_file, read_manifest
from shards.mends import mend_shard
from shards.schema import ShardEntry

DEFAULT_CACHE_BYTES = 64 << 30
ATTEMPTS = 3
ABANDONED_SECONDS = 600
"""A download that nobody has written to for so long was left by a killed process."""
_CHUNK = 1 << 20


class Store(Protocol):
    """Gives the shards of a dataset as open files; `remote` where the first opening downloads."""

    remote: bool

    def open(self, shard: ShardEntry) -> IO[bytes]:
        """Open a shard for reading. Raises `DatasetError` where it is not to be had whole."""


class LocalStore:
    """The shards of a folder."""

    remote = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, shard: ShardEntry) -> IO[bytes]:
        """Open a shard for reading."""
        try:
            return (self._folder / shard.file).open("rb")
        except FileNotFoundError:
            raise DamageError(self._folder / shard.file, "the shard is missing", mend_shard(shard.file)) from None


class CachedStore:
    """Shards behind an fsspec URL, downloaded when first needed into a folder that all processes of a node share.

    A download is checked against the manifest's SHA-256 before it takes its name, so what lies in the cache is whole.
    One process downloads a shard while the others wait for it. The least recently used shards make room: the shards
    together stay under `limit` bytes, but for one that alone is larger.
    """

    remote = True

    def __init__(self, url: str, folder: Path, limit: int = DEFAULT_CACHE_BYTES, **options: Any) -> None:
        self._folder, self._limit = folder, limit
        self._files, self._root = connect(url, **options)

    def open(self, shard: ShardEntry) -> IO[bytes]:
        """Open a shard, downloading it where it is not in the cache."""
        local = self._folder / shard.file
        while True:
            with suppress(FileNotFoundError):
                # Open first, look then: a file that another process evicts now stays readable through this handle.
                file = local.open("rb")
                if os.fstat(file.fileno()).st_size == shard.bytes:
                    os.utime(local)
                    return file
                file.close()
            with self._lock(shard.file):
                if not (local.is_file() and local.stat().st_size == shard.bytes):
                    self._download(shard, local)

    def _download(self, shard: ShardEntry, local: Path) -> None:
        source = f"{self._root}/{shard.file}"

        def fetch() -> None:
            digest = hashlib.sha256()
            with self._files.open(source, "rb") as remote, atomic_file(local) as file:
                self._reserve(file, shard.bytes)
                while chunk := remote.read(_CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
                if digest.hexdigest() != shard.sha256:
                    raise OSError("its sha256 is not the manifest's")

        with_retries(fetch, source)

    def _reserve(self, file: IO[bytes], needed: int) -> None:
        """Give a download its place on the disk, once evictions and other downloads leave the room for it."""
        while True:
            with self._lock("room"):
                # In this order: a download that ends meanwhile counts twice, never not at all.
                loading = sum(map(_size, self._folder.glob("*/*.tar.tmp.*")))
                shards = sorted(self._folder.glob("*/*.tar"), key=_last_use)
                used = sum(map(_size, shards))
                while shards and used + loading + needed > self._limit:
                    used -= _size(shards[0])
                    shards.pop(0).unlink(missing_ok=True)
                if loading == 0 or used + loading + needed <= self._limit:
                    os.posix_fallocate(file.fileno(), 0, needed)  # counts for the others from here on
                    return
                self._remove_abandoned()
            time.sleep(0.05)

    def _remove_abandoned(self) -> None:
        for path in self._folder.glob("*/*.tar.tmp.*"):
            if time.time() - _last_use(path) > ABANDONED_SECONDS:
                path.unlink(missing_ok=True)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        path = self._folder / ".locks" / f"{name.replace('/', '_')}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path):
            yield


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another process was faster
        return 0


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def is_url(path: Path | str) -> bool:
    """Whether `path` names something behind an fsspec protocol, such as `s3://bucket/dataset`."""
    return "://" in str(path)


def local_path(address: str) -> Path:
    """Take an address for a path on this machine. Raises `MisuseError` for a URL."""
    if is_url(address):
        raise MisuseError(f"{address}: only a local dataset will do; copy it to this machine and name the copy")
    return Path(address)


def connect(url: str, **options: Any) -> tuple[Any, str]:
    """Open the file system of a URL; returns it and the path in it. Raises `DatasetError` for an unknown protocol."""
    try:
        files, root = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise DatasetError(f"{url}: {error}; install what fsspec needs for it (for S3: cascadence[s3])") from None
    return files, str(root).rstrip("/")


def fetch_documents(url: str, cache: Path, **options: Any) -> Path:
    """Fetch what a dataset says of itself, manifest, indexes and statistics, into a folder of its own in `cache`.

    What lies there already and is still the manifest's stays. Raises `DatasetError` where a document is not to be had,
    or not the manifest's.
    """
    files, root = connect(url, **options)
    content = _fetch(files, f"{root}/{MANIFEST}")
    folder = cache / sha256_bytes(content)[:16]  # another dataset at the same address gets a folder of its own
    write_bytes(folder / MANIFEST, content)
    for split, entry in read_manifest(folder).splits.items():
        index = folder / index_file(split)
        if not index.is_file() or sha256_file(index) != entry.index_sha256:
            fetched = _fetch(files, f"{root}/{index_file(split)}")
            if sha256_bytes(fetched) != entry.index_sha256:
                raise DatasetError(f"{url}: the index of {split} is not the manifest's; upload the dataset again")
            write_bytes(index, fetched)
    if not (folder / STATISTICS).is_file():
        with suppress(DatasetError):  # reading does without
            write_bytes(folder / STATISTICS, _fetch(files, f"{root}/{STATISTICS}"))
    return folder


def _fetch(files: Any, path: str) -> bytes:
    found: list[bytes] = []
    with_retries(lambda: found.append(files.cat_file(path)), path)
    return found[0]


def with_retries(work: Callable[[], None], source: str, done: str = "fetched") -> None:
    """Do something with a remote file, again after a failure. Raises `DatasetError` where it fails each time."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            work()
        except FileNotFoundError:
            raise DatasetError(f"{source}: there is no such file; check the address of the dataset") from None
        except CascadenceError:
            raise
        except Exception as error:  # each file system has errors of its own kind
            if attempt == ATTEMPTS:
                raise DatasetError(
                    f"{source}: could not be {done} in {ATTEMPTS} attempts ({error}); check the connection and "
                    "the address, and run it again"
                ) from error
            time.sleep(0.2 * attempt)
        else:
            return

"""Where a dataset is built: a folder beside its final name, or an address in object storage.

Names are relative to the dataset. In both places a file is whole or not there, a shard comes before its receipt, and
the manifest comes last.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pipeline.claim import claim_folder, claim_url
from pipeline.space import free_bytes
from shards.errors import MisuseError
from shards.files import remove_directory, sync_directory, write_bytes
from shards.manifest import MANIFEST, partial_folder
from shards.store import connect, is_url, with_retries


class Entry(NamedTuple):
    """A file that is there: its size in bytes, and when it was written, in seconds since the epoch."""

    bytes: int
    written: float


class Destination(Protocol):
    """A dataset being built, and the dataset that it becomes."""

    name: str

    def manifest(self) -> bytes | None:
        """The manifest of the finished dataset, where there is one."""

    def claim(self) -> AbstractContextManager[None]:
        """Hold the destination for this job alone. Raises `CascadenceError` where another job holds it."""

    def entries(self) -> dict[str, Entry]:
        """All files there, by name."""

    def exists(self, name: str) -> bool:
        """Whether a file is there."""

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The content of some files that are there."""

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""

    def remove(self, names: Iterable[str]) -> None:
        """Delete files, where they are there."""

    def workspace(self) -> AbstractContextManager[Path]:
        """A local folder; what is written into it is at the destination when the context ends well."""

    def room(self) -> int | None:
        """Bytes that are free there; None where there is no telling."""

    def place(self, name: str) -> str:
        """Where a file lies, for people."""

    def unpublish(self) -> None:
        """Prepare for a new dataset in the place of one that is there."""

    def publish(self) -> None:
        """Give the dataset, complete with its manifest, its final name; one that is there is replaced."""

    def repair(self) -> Destination:
        """The finished dataset itself, to put shards in their places again."""


class LocalDestination:
    """A folder that is built as `NAME.partial` and then renamed; with `building` off, the finished folder itself."""

    def __init__(self, folder: Path, *, building: bool = True) -> None:
        self._folder = folder.absolute()
        self._root = partial_folder(self._folder) if building else self._folder
        self.name = self._folder.name

    def __str__(self) -> str:
        return str(self._folder)

    def manifest(self) -> bytes | None:
        """The manifest of the finished dataset. Raises `MisuseError` for a folder that is none."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return (self._folder / MANIFEST).read_bytes()
        if self._folder.exists():
            raise MisuseError(f"{self}: exists and is no dataset; choose another --out, or remove it")
        return None

    def claim(self) -> AbstractContextManager[None]:
        """Hold the folder, by a lock that the system takes back from a process that dies."""
        return claim_folder(self._folder)

    def entries(self) -> dict[str, Entry]:
        """All files there, by name."""
        found = {path: path.stat() for path in self._root.rglob("*") if path.is_file() or path.is_symlink()}
        return {
            path.relative_to(self._root).as_posix(): Entry(stat.st_size, stat.st_mtime) for path, stat in found.items()
        }

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        return (self._root / name).is_file()

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The content of some files that are there."""
        return {name: (self._root / name).read_bytes() for name in names}

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        write_bytes(self._root / name, content)

    def remove(self, names: Iterable[str]) -> None:
        """Delete files, where they are there."""
        for name in names:
            (self._root / name).unlink(missing_ok=True)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """The folder itself: a shard is written there under a temporary name, and its receipt after it."""
        yield self._root

    def room(self) -> int | None:
        """Bytes that are free on the folder's disk."""
        return free_bytes(self._root)

    def place(self, name: str) -> str:
        """Where a file lies, for people."""
        return str(self._root / name)

    def unpublish(self) -> None:
        """Nothing needs to be done: the dataset that is there stays until the new one is complete."""

    def publish(self) -> None:
        """Rename the folder; an older dataset is moved out of the way first and deleted afterwards."""
        previous = self._folder.with_name(f".{self._folder.name}.previous")
        if self._folder.exists():
            remove_directory(previous, MANIFEST)
            self._folder.rename(previous)
        self._root.rename(self._folder)
        sync_directory(self._folder.parent)
        remove_directory(previous, MANIFEST)

    def repair(self) -> Destination:
        """The finished folder itself."""
        return LocalDestination(self._folder, building=False)


class RemoteDestination:
    """An fsspec URL. Objects appear whole, so it is built in its place; the manifest makes it a dataset."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self.name = self._url.rpartition("/")[2]

    def __str__(self) -> str:
        return self._url

    @cached_property
    def _store(self) -> tuple[Any, str]:
        return connect(self._url)

    def __getstate__(self) -> dict[str, Any]:
        """Travel to other processes as an address: a connection belongs to its process."""
        return {"_url": self._url, "name": self.name}

    def manifest(self) -> bytes | None:
        """The manifest of the finished dataset."""
        return self.read([MANIFEST])[MANIFEST] if self.exists(MANIFEST) else None

    def claim(self) -> AbstractContextManager[None]:
        """Hold the address, by an object that is renewed while the job lives."""
        return claim_url(*self._store, self._url)

    def entries(self) -> dict[str, Entry]:
        """All files there, by name."""
        files, root = self._store
        files.invalidate_cache()
        found: dict[str, Any] = self._ask(lambda: files.find(root, detail=True))
        return {path.removeprefix(f"{root}/"): Entry(info["size"], _written(info)) for path, info in found.items()}

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        files, root = self._store
        files.invalidate_cache()
        return bool(self._ask(lambda: files.exists(f"{root}/{name}")))

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The content of some files that are there; many are fetched at once."""
        files, root = self._store
        paths = {f"{root}/{name}": name for name in names}
        found: dict[str, bytes] = self._ask(lambda: files.cat(list(paths))) if paths else {}
        return {paths[path]: content for path, content in found.items()}

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Ask the file system something, again where it fails; its errors become one line."""
        answers: list[Any] = []
        with_retries(lambda: answers.append(question()), self._url, "read")
        return answers[0]

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        files, root = self._store
        with_retries(lambda: files.pipe_file(f"{root}/{name}", content), f"{self._url}/{name}", "written")

    def remove(self, names: Iterable[str]) -> None:
        """Delete files, where they are there."""
        files, root = self._store
        for name in names:
            with suppress(FileNotFoundError):
                files.rm_file(f"{root}/{name}")

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A temporary folder, uploaded at the end: receipts after shards, the manifest after all else."""
        with tempfile.TemporaryDirectory(prefix="cascadence-") as folder:
            yield Path(folder)
            written = [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()]
            for name in sorted(written, key=lambda name: (name == MANIFEST, name.startswith("receipts/"), name)):
                self._upload(Path(folder, name), name)

    def _upload(self, path: Path, name: str) -> None:
        files, root = self._store

        def upload() -> None:
            files.put_file(str(path), f"{root}/{name}")
            files.invalidate_cache()
            if files.info(f"{root}/{name}")["size"] != path.stat().st_size:
                raise OSError("what arrived has another size")

        with_retries(upload, f"{self._url}/{name}", "written")

    def room(self) -> int | None:
        """None: object storage does not tell."""
        return None

    def place(self, name: str) -> str:
        """Where a file lies, for people."""
        return f"{self._url}/{name}"

    def unpublish(self) -> None:
        """Take the manifest away: the new shards take the places of the old ones."""
        self.remove([MANIFEST])

    def publish(self) -> None:
        """Nothing is left to do: the manifest was uploaded last."""

    def repair(self) -> Destination:
        """The same address."""
        return self


def open_destination(out: Path | str) -> Destination:
    """Name where a dataset is to be: a folder, or an fsspec URL such as `s3://bucket/dataset`."""
    return RemoteDestination(str(out)) if is_url(out) else LocalDestination(Path(out))


def _written(info: dict[str, Any]) -> float:
    """When an object was written, by the names that file systems have for it."""
    moment = info.get("LastModified") or info.get("created") or info.get("mtime") or 0.0
    return float(moment.timestamp() if hasattr(moment, "timestamp") else moment)

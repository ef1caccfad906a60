"""How the loader gets the bytes of an array: straight from the shard's file, or through the stock `webdataset`."""

from __future__ import annotations

import io
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, Literal, NamedTuple, Protocol

from shards.errors import MisuseError
from shards.schema import ShardEntry
from shards.store import Store

BackendName = Literal["direct", "webdataset"]
OPEN_FILES = 128
DOWNLOADS = 4
MOST_BYTES = 2**63 - 2**31
"""No offset lies beyond: the system counts in signed 64-bit numbers."""


class BadPayload(Exception):
    """A payload that is not what the index and the manifest say; its text says how."""


class Place(NamedTuple):
    """Where an array's payload is: the shard's number, the sample's key, the side, and the bytes."""

    shard: int
    key: str
    side: str
    offset: int
    size: int


class Backend(Protocol):
    """Copies payloads out of the shards of one split."""

    def read(self, place: Place, header: memoryview, values: memoryview) -> None:
        """Fill `header` and `values` with a payload. Raises `BadPayload` where it is not of their length."""

    def ahead(self, shards: Iterable[int]) -> None:
        """Hear of shards that will be needed soon."""

    def close(self) -> None:
        """Let go of files and threads."""


class DirectBackend:
    """Reads payloads from their offsets: one system call and one copy, into the batch itself.

    No memory map: a shard that is cut while it is read gives an error here, and would end the process there.
    """

    def __init__(self, store: Store, shards: Sequence[ShardEntry]) -> None:
        self._store, self._shards = store, shards
        self._files: OrderedDict[int, IO[bytes]] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None
        self._asked: dict[int, Future[None]] = {}

    def read(self, place: Place, header: memoryview, values: memoryview) -> None:
        """Fill `header` and `values` with a payload."""
        if place.offset > MOST_BYTES:
            raise BadPayload(f"no file reaches to byte {place.offset}")
        got = os.preadv(self._file(place.shard).fileno(), [header, values], place.offset)
        if got != place.size or got != len(header) + len(values):
            raise BadPayload(f"it has {min(got, place.size)} bytes, not {len(header) + len(values)}")

    def ahead(self, shards: Iterable[int]) -> None:
        """Download shards that are not in the cache yet, a few at a time."""
        if not self._store.remote:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(DOWNLOADS, thread_name_prefix="shards-download")
        for shard in shards:
            if shard not in self._asked:
                self._asked[shard] = self._pool.submit(self._download, self._shards[shard])

    def close(self) -> None:
        """Close the files and end the downloads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._asked.clear()
        self._pool = None

    def _download(self, shard: ShardEntry) -> None:
        self._store.open(shard).close()

    def _file(self, shard: int) -> IO[bytes]:
        file = self._files.get(shard)
        if file is None:
            if len(self._files) >= OPEN_FILES:
                self._files.popitem(last=False)[1].close()
            self._files[shard] = file = self._store.open(self._shards[shard])
        self._files.move_to_end(shard)
        return file


class WebDatasetBackend:
    """Reads whole shards with the stock `webdataset` reader and keeps the samples of the newest ones.

    For interoperation, and as a baseline: the order is the loader's own, so it suits small windows of shards.
    """

    def __init__(self, store: Store, shards: Sequence[ShardEntry], kept: int) -> None:
        self._store, self._shards, self._kept = store, shards, kept
        self._samples: OrderedDict[int, dict[str, dict[str, Any]]] = OrderedDict()

    def read(self, place: Place, header: memoryview, values: memoryview) -> None:
        """Fill `header` and `values` with a payload."""
        sample = self._shard(place.shard).get(place.key)
        payload = memoryview(sample[f"{place.side}.npy"]) if sample else memoryview(b"")
        if len(payload) != len(header) + len(values):
            raise BadPayload(f"webdataset gives {len(payload)} bytes, not {len(header) + len(values)}")
        header[:], values[:] = payload[: len(header)], payload[len(header) :]

    def ahead(self, shards: Iterable[int]) -> None:
        """Leave the stock reader as it is: it reads a shard when it is asked for one."""

    def close(self) -> None:
        """Let go of the samples."""
        self._samples.clear()

    def _shard(self, number: int) -> dict[str, dict[str, Any]]:
        if number not in self._samples:
            while len(self._samples) >= self._kept:
                self._samples.popitem(last=False)
            self._samples[number] = {s["__key__"]: s for s in self._read_shard(self._shards[number])}
        return self._samples[number]

    def _read_shard(self, shard: ShardEntry) -> Iterable[dict[str, Any]]:
        try:
            from webdataset.tariterators import group_by_keys, tar_file_expander
        except ImportError:
            raise MisuseError("webdataset is not installed; install cascadence[webdataset], or use `direct`") from None
        with self._store.open(shard) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = [{"url": shard.file, "stream": io.BytesIO(file.read())}]
            yield from group_by_keys(tar_file_expander(source))


def make_backend(name: BackendName, store: Store, shards: Sequence[ShardEntry], window: int | None) -> Backend:
    """Make a back end over the shards of a split."""
    if name == "direct":
        return DirectBackend(store, shards)
    return WebDatasetBackend(store, shards, kept=window or len(shards))

"""A dataset on disk, opened and checked: where the loader, the audit and the inspection tools begin."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from shards.backend import BackendName
from shards.buffers import BufferPool
from shards.checksum import crc32
from shards.errors import DamageError, DatasetError, MisuseError
from shards.files import sha256_file
from shards.index import Index, load_index
from shards.locate import Location, find
from shards.manifest import index_file, read_manifest
from shards.mends import mend_index, mend_shard
from shards.schema import ArrayField, CodecSpec, Manifest, SampleRecord, ShardEntry, SideName, SplitEntry
from shards.store import DEFAULT_CACHE_BYTES, CachedStore, LocalStore, Store, fetch_documents, is_url
from shards.wire import decode_array, size_limit
from shards.writer import Sample

if TYPE_CHECKING:
    from shards.reader import Loader


MemberName = Literal["input", "json", "target", "input_flac", "target_flac"]
"""A member of a sample, by the name of its columns in the index."""

FLAC_MEMBER: dict[SideName, MemberName] = {"input": "input_flac", "target": "target_flac"}


class Dataset:
    """A published dataset: its manifest, its indexes, and loaders over its splits.

    `path` is the folder of its documents; `address` is what people call it: that folder, or the URL it is a cache of.
    """

    def __init__(
        self, path: Path, manifest: Manifest, store: Store | None = None, *, address: str | None = None
    ) -> None:
        self.path = path
        self.address = address or str(path)
        self.manifest = manifest
        self.store = store or LocalStore(path)
        self.buffers = BufferPool()
        self._indexes: dict[str, Index] = {}

    @property
    def splits(self) -> dict[str, SplitEntry]:
        """The splits by name."""
        return self.manifest.splits

    @property
    def codec(self) -> CodecSpec:
        """The codec that made the latents."""
        return self.manifest.codec

    @cached_property
    def frames(self) -> int:
        """Latent frames T of every sample."""
        return self.manifest.fields[0].shape[1]

    def split(self, name: str) -> SplitEntry:
        """Return a split's entry. Raises `MisuseError` where there is none of that name."""
        if name not in self.splits:
            raise MisuseError(
                f"{self.address}: there is no split {name!r}; choose one of: {', '.join(sorted(self.splits))}"
            )
        return self.splits[name]

    def index(self, split: str) -> Index:
        """Memory-map a split's index, one row a sample in shard order."""
        if split not in self._indexes:
            self._indexes[split] = self._load_index(self.split(split), self.index_path(split))
        return self._indexes[split]

    def _load_index(self, entry: SplitEntry, path: Path) -> Index:
        index = load_index(path)
        if len(index) != entry.samples or int(index["shard"].max(initial=0)) >= max(len(entry.shards), 1):
            raise DamageError(path, "its rows are not those of the manifest's shards", mend_index(self.path))
        return index

    def index_path(self, split: str) -> Path:
        """Return the index file of a split."""
        return self.path / index_file(split)

    def require_codec(self, codec: CodecSpec, wanted_by: str) -> None:
        """Raise `DatasetError` unless the latents were made by `codec`."""
        if self.codec != codec:
            raise DatasetError(
                f"{self.address}: its latents were made by the codec {describe_codec(self.codec)}, {wanted_by} was "
                f"made for {describe_codec(codec)}; use shards of that codec (`python -m pipeline encode --codec "
                f"{codec.name}{' --latents codes' if codec.stage == 'quantized' else ''}`)"
            )

    def loader(
        self,
        split: str,
        batch_size: int,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        *,
        mode: Literal["train", "evaluate"] | None = None,
        window: int | None = None,
        partitions: int = 1,
        re_pair: bool = False,
        backend: BackendName = "direct",
        check_crc: bool = True,
        on_bad: Literal["raise", "mask"] = "raise",
        max_bad: int = 16,
        pin_memory: bool = False,
    ) -> Loader:
        """Make a loader of one epoch for one rank; `batch_size` is per rank. See `shards.reader.Loader`.

        `mode` is `train` for the split of that name and `evaluate` for the others, unless it is given. `window`,
        `partitions` and `re_pair` shape the order of training (`shards.order.OrderPlan`). `backend` is `direct`, or
        `webdataset` for the stock reader. `on_bad="mask"` gives damaged samples weight 0, up to `max_bad` of them.
        """
        # Here and not above: the loader gives torch tensors, and looking at a dataset needs no torch.
        from shards.reader import Loader, LoaderOptions

        options = LoaderOptions(
            mode or ("train" if split == "train" else "evaluate"),
            window,
            partitions,
            re_pair,
            backend,
            check_crc,
            on_bad,
            max_bad,
            pin_memory,
        )
        return Loader(self, split, batch_size, seed, epoch, rank, world_size, options)

    def locate(self, name: str) -> Location:
        """Find a sample by its key (or the start of it), by `shard#position`, or by `split:number`.

        A bare number counts through all splits, in the manifest's order; one too large for that is taken for the
        start of a key. Raises `MisuseError` where nothing, or more than one sample, has that name.
        """
        found = find(self, name)
        if len(found) == 1:
            return found[0]
        problem = "no sample" if not found else f"{len(found)} samples"
        raise MisuseError(
            f"{self.address}: {problem} named {name!r}; `python -m shards list {self.address}` shows the keys"
        )

    def read(self, place: Location) -> Sample:
        """Read one sample whole, every byte checked. Raises `DatasetError` where it is damaged."""
        record = self.record(place)
        arrays = {field.name: self._array(place, field) for field in self.manifest.fields}
        audio = {side: self.payload(place, FLAC_MEMBER[side]) for side in self.manifest.audio}
        return Sample(record, arrays["input"], arrays["target"], audio)

    def record(self, place: Location) -> SampleRecord:
        """Read one sample's record. Raises `DatasetError` where it is damaged."""
        payload = self.payload(place, "json")
        try:
            record = SampleRecord.parse(payload)
        except DatasetError as error:
            raise self._damaged(place, "json", str(error)) from None
        if record.key != place.key:
            raise self._damaged(place, "json", f"it belongs to the key {record.key!r}")
        return record

    def payload(self, place: Location, member: MemberName) -> bytes:
        """Read one member of a sample.

        Raises `MisuseError` for audio that the dataset does not hold, `DatasetError` where the member is damaged.
        """
        row = self.index(place.split)[place.number]
        offset, size = int(row[f"{member}_offset"]), int(row[f"{member}_bytes"])
        if not size and member.endswith("flac"):
            raise MisuseError(
                f"{self.address}: holds no {member.replace('_', '.')}; encode it again with "
                "`python -m pipeline encode --audio both`"
            )
        with self.store.open(place.shard) as shard:
            # Looked at before a buffer of that size is made.
            if offset + size > os.fstat(shard.fileno()).st_size or size > size_limit(member):
                raise self._damaged(place, member, f"the index claims {size} bytes")
            shard.seek(offset)
            payload = shard.read(size)
        if crc32(payload) != row[f"{member}_crc32"]:
            raise self._damaged(place, member, "its crc32 is not the index's")
        return payload

    def _array(self, place: Location, field: ArrayField) -> NDArray[Any]:
        try:
            array = decode_array(self.payload(place, field.name))
        except ValueError as error:
            raise self._damaged(place, field.name, str(error)) from None
        if (array.dtype, array.shape) != (np.dtype(field.dtype), field.shape):
            raise self._damaged(place, field.name, f"it is no {field.dtype} {list(field.shape)}")
        return array

    def _damaged(self, place: Location, member: str, what: str) -> DamageError:
        offset = int(self.index(place.split)[place.number][f"{member}_offset"])
        return self.damage(place.shard, place.key, member, offset, what)

    def damage(self, shard: ShardEntry, key: str, member: str, offset: int, what: str) -> DamageError:
        """Make the error of one damaged member of a sample."""
        mend = "remove the file, and it is fetched again" if self.store.remote else mend_shard(shard.file)
        return DamageError(
            self.path / shard.file, f"{member} of sample {key} at byte {offset} is damaged ({what})", mend
        )

    def location(self, split: str, number: int) -> Location:
        """Tell where sample `number` of a split is."""
        row = self.index(split)[number]
        shard = self.splits[split].shards[int(row["shard"])]
        return Location(split, number, row["key"].decode(), shard, int(row["position"]))


def describe_codec(codec: CodecSpec) -> str:
    """Name a codec, and its weights where it has any, in a few words."""
    name = f"{codec.name}, quantized" if codec.stage == "quantized" else codec.name
    return name if codec.weights_sha256 is None else f"{name} (weights {codec.weights_sha256[:12]})"


def open_dataset(
    path: Path | str, *, cache: Path | None = None, cache_bytes: int = DEFAULT_CACHE_BYTES, **options: Any
) -> Dataset:
    """Open a dataset and check it quickly: manifest, sizes of all shards, hashes of the indexes.

    `path` is a folder, or an fsspec URL (`s3://bucket/dataset`, with `options` for its file system): then manifest and
    indexes are fetched into `cache` (else ~/.cache/cascadence), and each shard when it is first needed, the least
    recently used making room above `cache_bytes`. Raises `DatasetError`, naming the file and the mend, where the
    dataset is missing, unfinished or damaged.
    """
    if is_url(path):
        folder = fetch_documents(str(path), cache or Path.home() / ".cache" / "cascadence", **options)
        store = CachedStore(str(path), folder, cache_bytes, **options)
        return Dataset(folder, read_manifest(folder), store, address=str(path))
    folder = Path(path)
    manifest = read_manifest(folder)
    for split, entry in manifest.splits.items():
        for shard in entry.shards:
            check_size(folder, shard)
        index = folder / index_file(split)
        if not index.is_file() or sha256_file(index) != entry.index_sha256:
            raise DamageError(index, "the index is missing or changed", mend_index(folder))
    return Dataset(folder, manifest)


def check_size(folder: Path, shard: ShardEntry) -> None:
    """Raise `DatasetError` unless a shard is there with the size that the manifest gives."""
    path = folder / shard.file
    if not path.is_file():
        raise DamageError(path, "the shard is missing", mend_shard(shard.file))
    size = path.stat().st_size
    if size != shard.bytes:
        what = f"has {size} bytes, the manifest says {shard.bytes}"
        raise DamageError(path, what, mend_shard(shard.file))

"""The loader and the opening of a dataset: content, order over ranks, resumes, damage, and what misuse says."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from make_data import MDCT, SHARD_SIZES, flip_byte, make_dataset, make_sample

from shards import Dataset, open_dataset
from shards.buffers import BufferPool
from shards.errors import DatasetError, MisuseError
from shards.order import OrderPlan
from shards.reader import PREFETCHED_BATCHES, Batch, Loader
from shards.schema import CodecSpec

TRAIN = 23
VAL = 4


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(make_dataset(tmp_path_factory.mktemp("loader") / "tiny-v1"))


@pytest.fixture
def copy(dataset: Dataset, tmp_path: Path) -> Path:
    """A copy of the dataset, to be damaged."""
    return shutil.copytree(dataset.path, tmp_path / "copy")


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "shards-prefetch"]


def keys_of(loaders: list[Loader]) -> list[list[str]]:
    """Keys of each global batch, put together from the ranks' loaders; padding left out."""
    steps = []
    for batches in zip(*loaders, strict=True):
        rows = [pair for batch in batches for pair in zip(batch.keys, batch.weight.tolist(), strict=True)]
        steps.append([key for key, weight in rows if weight])
    return steps


def ranks(dataset: Dataset, batch_size: int, world_size: int, split: str = "train", **more: Any) -> list[Loader]:
    return [dataset.loader(split, batch_size, rank=rank, world_size=world_size, **more) for rank in range(world_size)]


def flat(steps: list[list[str]]) -> list[str]:
    return [key for step in steps for key in step]


# What a batch holds


def test_a_batch_has_the_shapes_types_and_keys_of_the_contract(dataset: Dataset) -> None:
    batches = list(dataset.loader("train", batch_size=4, seed=0, epoch=0, rank=0, world_size=1))
    assert len(batches) == TRAIN // 4
    for batch in batches:
        assert isinstance(batch, Batch)
        assert batch.input.shape == batch.target.shape == (4, 128, 40)
        assert batch.input.dtype == batch.target.dtype == torch.float16
        assert batch.weight.tolist() == [1, 1, 1, 1]
        assert batch.weight.dtype == torch.float32
        assert len(batch.keys) == 4
        assert all(re.fullmatch("[0-9a-f]{32}", key) for key in batch.keys)


def test_a_batch_holds_what_was_written(dataset: Dataset) -> None:
    written = {s.record.key: s for s in (make_sample(n, group=f"train-{n % 3}") for n in range(TRAIN))}
    read = 0
    for batch in dataset.loader("train", 1):
        sample = written.pop(batch.keys[0])
        np.testing.assert_array_equal(batch.input[0].numpy(), sample.input)
        np.testing.assert_array_equal(batch.target[0].numpy(), sample.target)
        read += 1
    assert read == TRAIN
    assert not written


def test_float32_latents_stay_float32(tmp_path: Path) -> None:
    single = open_dataset(make_dataset(tmp_path / "single", {"train": (3,)}, frames=7, dtype="float32"))
    batch = next(iter(single.loader("train", 3)))
    assert batch.target.dtype == torch.float32
    written = [make_sample(n, frames=7, dtype="float32", group=f"train-{n}") for n in range(3)]
    expected = {sample.record.key: sample.target for sample in written}
    for key, target in zip(batch.keys, batch.target, strict=True):
        np.testing.assert_array_equal(target.numpy(), expected[key])


def test_a_batch_is_the_callers_own(dataset: Dataset) -> None:
    first, again = (next(iter(dataset.loader("train", 2))) for _ in range(2))
    first.input.zero_()
    assert again.input.abs().sum() > 0
    assert next(iter(dataset.loader("train", 2))).input.equal(again.input)


# The order


def test_training_follows_the_canonical_order(dataset: Dataset) -> None:
    keys = [key.decode() for key in dataset.index("train")["key"]]
    for window in (None, 1, 2):
        order = OrderPlan(tuple(SHARD_SIZES["train"]), window).epoch(5, 2).inputs
        loader = dataset.loader("train", 1, seed=5, epoch=2, window=window)
        assert [batch.keys[0] for batch in loader] == [keys[number] for number in order]


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_world_size_sees_the_same_global_batches(dataset: Dataset, split: str) -> None:
    single = keys_of(ranks(dataset, 4, 1, split))
    assert len(flat(single)) == {"train": 20, "val": VAL}[split]
    assert keys_of(ranks(dataset, 2, 2, split)) == single
    assert keys_of(ranks(dataset, 1, 4, split)) == single


def test_training_sees_each_sample_once_and_drops_another_tail_each_epoch(dataset: Dataset) -> None:
    every = {key.decode() for key in dataset.index("train")["key"]}
    dropped = []
    for epoch in range(4):
        seen = flat(keys_of(ranks(dataset, 1, 4, epoch=epoch)))
        assert len(seen) == len(set(seen)) == 20
        dropped.append(frozenset(every - set(seen)))
    assert len(set(dropped)) == 4


@pytest.mark.parametrize(("split", "batch_size", "world_size"), [("train", 3, 4), ("val", 3, 2), ("val", 1, 8)])
def test_evaluation_counts_each_sample_once_with_equal_steps(
    dataset: Dataset, split: str, batch_size: int, world_size: int
) -> None:
    loaders = ranks(dataset, batch_size, world_size, split, mode="evaluate")
    samples = dataset.splits[split].samples
    steps = -(-samples // (batch_size * world_size))
    assert [len(loader) for loader in loaders] == [steps] * world_size
    batches = [list(loader) for loader in loaders]
    assert [len(one) for one in batches] == [steps] * world_size
    weights = torch.stack([batch.weight for one in batches for batch in one])
    assert weights.sum() == samples
    assert (weights == 0).sum() == batch_size * world_size * steps - samples > 0
    assert all(batch.input.shape == (batch_size, 128, 40) and batch.input.isfinite().all() for batch in batches[-1])
    again = ranks(dataset, batch_size, world_size, split, mode="evaluate")
    assert flat(keys_of(again)) == [key.decode() for key in dataset.index(split)["key"]]


def test_validation_is_evaluated_and_train_is_trained_unless_told_otherwise(dataset: Dataset) -> None:
    in_order = [key.decode() for key in dataset.index("train")["key"]]
    assert [b.keys[0] for b in dataset.loader("train", 1, mode="evaluate")] == in_order
    assert [b.keys[0] for b in dataset.loader("train", 1)] != in_order
    in_order = [key.decode() for key in dataset.index("val")["key"]]
    assert [b.keys[0] for b in dataset.loader("val", 1, seed=9)] == in_order
    assert len(dataset.loader("val", 3)) == 2
    assert len(dataset.loader("val", 3, mode="train")) == 1


# Resumes


def resumed(dataset: Dataset, state: dict[str, Any], batch_size: int, world_size: int, **more: Any) -> list[Loader]:
    loaders = ranks(dataset, batch_size, world_size, **more)
    for loader in loaders:
        loader.load_state_dict(state)
    return loaders


@pytest.mark.parametrize(("batch_size", "world_size"), [(4, 1), (2, 2), (1, 4), (3, 1), (1, 1), (1, 2), (5, 2)])
def test_an_epoch_goes_on_where_it_stopped(dataset: Dataset, batch_size: int, world_size: int) -> None:
    whole = flat(keys_of(ranks(dataset, 1, 1, seed=3, epoch=1)))
    loader = dataset.loader("train", 2, seed=3, epoch=1, rank=1, world_size=2)
    stream = iter(loader)
    next(stream), next(stream)
    state = json.loads(json.dumps(loader.state_dict()))
    loaders = resumed(dataset, state, batch_size, world_size, seed=3)
    steps = (TRAIN - 8) // (batch_size * world_size)
    assert [len(one) for one in loaders] == [steps] * world_size
    assert flat(keys_of(loaders)) == whole[8 : 8 + steps * batch_size * world_size]


def test_an_evaluation_goes_on_where_it_stopped(dataset: Dataset) -> None:
    loader = dataset.loader("train", 4, mode="evaluate")
    next(iter(loader))
    rest = flat(keys_of(resumed(dataset, loader.state_dict(), 3, 2, mode="evaluate")))
    assert rest == [key.decode() for key in dataset.index("train")["key"]][4:]


def test_the_state_counts_what_was_received_and_not_what_was_prefetched(dataset: Dataset) -> None:
    loader = dataset.loader("train", 1)
    assert loader.state_dict()["samples_done"] == 0
    for number, _ in enumerate(loader, start=1):
        assert loader.state_dict()["samples_done"] == number
        assert len(loader) == TRAIN - number
    assert TRAIN > PREFETCHED_BATCHES + 1  # the thread did read ahead


def test_the_state_of_a_finished_epoch_leaves_nothing(dataset: Dataset) -> None:
    for split, mode in (("train", "train"), ("val", "evaluate")):
        loader = dataset.loader(split, 3)
        assert list(loader)
        assert loader.state_dict()["mode"] == mode
        assert len(loader) == 0
        assert list(loader) == []
        (again,) = resumed(dataset, loader.state_dict(), 3, 1, split=split)
        assert list(again) == []


def test_an_iterator_given_up_and_begun_again_goes_on_after_the_last_batch_received(dataset: Dataset) -> None:
    whole = flat(keys_of(ranks(dataset, 2, 1)))
    loader = dataset.loader("train", 2)
    for batch in loader:
        if batch.keys == whole[4:6]:
            break
    assert flat([batch.keys for batch in loader]) == whole[6:]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("seed", {"seed": 8}),
        ("window", {"window": 2}),
        ("split", {"split": "val", "mode": "train"}),
        ("mode", {"mode": "evaluate"}),
    ],
)
def test_the_state_of_another_order_is_refused_by_name(dataset: Dataset, name: str, other: dict[str, Any]) -> None:
    state = dataset.loader("train", 2).state_dict()
    arguments: dict[str, Any] = {"split": "train", "batch_size": 2} | other
    loader = dataset.loader(**arguments)
    with pytest.raises(MisuseError, match=f"saved with {name} .*, this loader has .*; resume with the same"):
        loader.load_state_dict(state)


def test_the_state_of_another_dataset_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    other = open_dataset(make_dataset(tmp_path / "other", seed=1))
    with pytest.raises(MisuseError, match=f"saved with fingerprint '{other.manifest.fingerprint}'"):
        dataset.loader("train", 2).load_state_dict(other.loader("train", 2).state_dict())


def test_the_state_of_something_else_is_refused(dataset: Dataset) -> None:
    with pytest.raises(MisuseError, match=r"lacks epoch, fingerprint, .*not saved by a loader"):
        dataset.loader("train", 2).load_state_dict({"step": 3})


# Damage while reading


def victim(path: Path, split: str = "train", number: int = 12) -> tuple[Path, str, int, int]:
    """Shard, key, and offset and size of the target of one sample."""
    opened = open_dataset(path)
    row = opened.index(split)[number]
    shard = path / opened.splits[split].shards[row["shard"]].file
    return shard, row["key"].decode(), int(row["target_offset"]), int(row["target_bytes"])


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_one_flipped_byte_is_named_by_shard_key_and_offset(copy: Path, mode: Literal["train", "evaluate"]) -> None:
    shard, key, offset, size = victim(copy)
    flip_byte(shard, offset + size // 2)
    loader = open_dataset(copy).loader("train", 1, mode=mode)
    received: list[str] = []
    with pytest.raises(DatasetError) as raised:
        received.extend(batch.keys[0] for batch in loader)
    for part in (str(shard), key, f"target of sample {key} at byte {offset}", "crc32"):
        assert part in str(raised.value)
    assert key not in received
    assert loader.state_dict()["samples_done"] == len(received)
    assert threads() == []


def test_only_the_rank_that_reads_the_damaged_sample_fails(copy: Path) -> None:
    shard, _, offset, size = victim(copy)
    flip_byte(shard, offset + size // 2)
    steps = []
    for loader in ranks(open_dataset(copy), 1, 4):
        with suppress(DatasetError):
            steps.append(len(list(loader)))
    assert steps == [5, 5, 5]


def test_without_crc_a_damaged_header_is_still_found(copy: Path) -> None:
    shard, key, offset, size = victim(copy)
    flip_byte(shard, offset + size // 2)
    assert len(list(open_dataset(copy).loader("train", 1, check_crc=False))) == TRAIN
    flip_byte(shard, offset + 20)
    with pytest.raises(DatasetError, match=rf"{key} at byte {offset} .*no float16 \[128, 40\]"):
        list(open_dataset(copy).loader("train", 1, check_crc=False))


def test_an_error_in_the_prefetch_thread_reaches_the_consumer(copy: Path) -> None:
    opened = open_dataset(copy)
    missing = copy / opened.splits["val"].shards[0].file
    missing.unlink()
    with pytest.raises(DatasetError, match=re.escape(f"{missing}: the shard is missing; restore the shard")):
        list(opened.loader("val", 2))
    assert threads() == []


# Threads


def test_a_finished_iterator_leaves_no_thread(dataset: Dataset) -> None:
    list(dataset.loader("train", 2))
    assert threads() == []


def test_an_abandoned_iterator_leaves_no_thread(dataset: Dataset) -> None:
    stream = iter(dataset.loader("train", 1))
    next(stream)
    assert threads() == ["shards-prefetch"]
    del stream
    assert threads() == []
    for _ in dataset.loader("train", 1):
        break
    assert threads() == []


def test_a_consumers_own_error_leaves_no_thread(dataset: Dataset) -> None:
    def consume() -> None:
        for _ in dataset.loader("train", 1):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert threads() == []


def test_a_loader_that_is_never_read_starts_no_thread(dataset: Dataset) -> None:
    loader = dataset.loader("train", 1)
    stream = iter(loader)
    assert threads() == []
    del stream


# Misuse


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 2, "world_size": 2}, r"rank 2, world_size 2.*rank must lie in \[0, world_size\)"),
        ({"rank": -1}, "rank -1"),
        ({"world_size": 0}, "world_size 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"window": 0}, "a window of 0 shards"),
        ({"window": -3}, "a window of -3 shards"),
        ({"split": "test"}, "there is no split 'test'; choose one of: train, val"),
    ],
)
def test_a_loader_that_makes_no_sense_is_refused(dataset: Dataset, arguments: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"split": "train", "batch_size": 2} | arguments
    with pytest.raises(MisuseError, match=message):
        dataset.loader(**given)


# Opening


def test_open_takes_a_string_and_gives_the_manifest(dataset: Dataset) -> None:
    opened = open_dataset(str(dataset.path))
    assert opened.manifest == dataset.manifest
    assert opened.frames == 40
    assert opened.codec == MDCT


def _unfinished(path: Path) -> None:
    path.rename(path.with_name(path.name + ".partial"))
    (path.with_name(path.name + ".partial") / "dataset.json").unlink()


def _cut(path: Path) -> None:
    shard = path / "train" / "tiny-v1-train-000001.tar"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "{path}: there is no such dataset; make one with `python -m pipeline encode`"),
        (_unfinished, "{path}: its encoding was not finished; run the same `python -m pipeline encode` again"),
        (lambda p: (p / "dataset.json").unlink(), "{path}: not a dataset, it has no dataset.json; name the folder"),
        (_cut, r"{path}/train/tiny-v1-train-000001.tar: has \d+ bytes, the manifest says \d+; restore the shard"),
        (lambda p: (p / "val/tiny-v1-val-000000.tar").unlink(), "{path}/val/tiny-v1-val-000000.tar: .* is missing"),
        (lambda p: flip_byte(p / "index/val.npy", 200), "{path}/index/val.npy: the index is missing or changed"),
        (lambda p: (p / "index/train.npy").unlink(), "{path}/index/train.npy: the index is missing or changed"),
    ],
)
def test_a_dataset_that_is_not_whole_is_refused(copy: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(copy)
    with pytest.raises(DatasetError, match=message.format(path=re.escape(str(copy)))) as raised:
        open_dataset(copy)
    assert "\n" not in str(raised.value)


def test_the_codec_must_be_the_one_that_made_the_latents(dataset: Dataset) -> None:
    dataset.require_codec(MDCT, "the model")
    encodec = CodecSpec(name="encodec", stage="pre_quantizer", bandwidth=6.0, weights_sha256="abcdef0123456789" * 4)
    with pytest.raises(DatasetError) as raised:
        dataset.require_codec(encodec, "the checkpoint")
    for part in (str(dataset.path), "made by the codec mdct,", "the checkpoint", "encodec (weights abcdef012345)"):
        assert part in str(raised.value)
    assert "`python -m pipeline encode --codec encodec`" in str(raised.value)


# Names


def test_every_name_of_a_sample_finds_it(dataset: Dataset) -> None:
    key = dataset.index("train")[12]["key"].decode()
    names = [key, key[:12], "train:12", "12"]
    names += ["tiny-v1-train-000001.tar#2", "train/tiny-v1-train-000001.tar#2"]
    for name in names:
        place = dataset.locate(name)
        assert (place.key, place.split, place.number, place.position) == (key, "train", 12, 2)
        assert place.shard.file == "train/tiny-v1-train-000001.tar"
    assert dataset.locate("25") == dataset.locate("val:2")


def test_digits_too_large_for_a_number_are_the_start_of_a_key(tmp_path: Path) -> None:
    many = open_dataset(make_dataset(tmp_path / "many", {"train": (60,)}, frames=1))
    keys = [key.decode() for key in many.index("train")["key"]]
    key = next(key for key in keys if key[:3].isdigit() and int(key[:3]) >= 60)
    assert many.locate(key[:3]).key == key


@pytest.mark.parametrize(
    "name",
    ["27", "train:23", "nosplit:0", "tiny-v1-train-000001.tar#10", "other.tar#0", "zz", "#1", "f" * 40, "train:\u00b2"],
)
def test_a_name_of_nothing_is_refused(dataset: Dataset, name: str) -> None:
    with pytest.raises(MisuseError, match=f"no sample named {name!r}; `python -m shards list .*` shows the keys"):
        dataset.locate(name)


def test_a_name_of_several_samples_is_refused(dataset: Dataset) -> None:
    with pytest.raises(MisuseError, match="27 samples named ''"):
        dataset.locate("")


# Memory


def test_memory_is_handed_out_again_only_when_no_tensor_refers_to_it() -> None:
    pool = BufferPool()
    first = torch.from_numpy(pool.take((4, 8), "float16"))
    view = first[1:2, 3:]
    address = first.data_ptr()
    del first
    assert torch.from_numpy(pool.take((4, 8), "float16")).data_ptr() != address, "a view still looks at it"
    del view
    again = torch.from_numpy(pool.take((4, 8), "float16"))
    assert again.data_ptr() == address
    assert torch.from_numpy(pool.take((4, 9), "float16")).data_ptr() != address


def test_batches_that_are_kept_keep_their_content(dataset: Dataset) -> None:
    kept = list(dataset.loader("train", 2, seed=4))
    copies = [(batch.input.clone(), batch.target.clone()) for batch in dataset.loader("train", 2, seed=4)]
    for batch, (source, goal) in zip(kept, copies, strict=True):
        assert batch.input.equal(source)
        assert batch.target.equal(goal)

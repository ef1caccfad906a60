"""The format: what lies on the disk, who else can read it, and what the writer and the publisher refuse."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import webdataset
from make_data import (
    BOTH,
    CODES,
    MDCT,
    make_dataset,
    make_header,
    make_receipt,
    make_sample,
    make_side,
    stand_in,
)

from shards import audit
from shards.audio import decode_flac, encode_flac
from shards.dataset import Dataset, open_dataset
from shards.errors import CascadenceError, DatasetError, MisuseError
from shards.files import atomic_file, write_bytes
from shards.index import INDEX_DTYPE, build_index, load_index, rows_from_shard
from shards.latents import cast
from shards.manifest import codec_fingerprint, fingerprint, partial_folder, read_manifest
from shards.order import OrderPlan, derive, permutation, splitmix64
from shards.publish import publish
from shards.schema import SIDES, Build, Manifest, Reject
from shards.wire import array_header, decode_array, encode_array, member_header, walk
from shards.writer import Sample, sample_key, write_shard

SAMPLES = [make_sample(number) for number in range(5)]
ARRAYS = ("input.npy", "json", "target.npy")
ALL = ("input.flac", "input.npy", "json", "target.flac", "target.npy")
KINDS = {
    "float16": ARRAYS,
    "float32": ARRAYS,
    "codes": ARRAYS,
    "float16 and target": ("input.npy", "json", "target.flac", "target.npy"),
    "codes and both": ALL,
}
"""What a dataset may store, and the members that its samples then have."""


def kind_options(kind: str) -> dict[str, Any]:
    """Arguments of `make_dataset` and `make_sample` for a kind."""
    stored, _, audio = kind.partition(" and ")
    sides: dict[str, tuple[str, ...]] = {"": (), "target": ("target",), "both": BOTH}
    options: dict[str, Any] = {"audio": sides[audio]}
    return options | ({"codec": CODES} if stored == "codes" else {"dtype": stored})


def make_samples(kind: str) -> list[Sample]:
    return [make_sample(number, **kind_options(kind)) for number in range(3)]


def write_kind(kind: str, folder: Path) -> tuple[Path, list[Sample]]:
    samples = make_samples(kind)
    write_shard(folder / "three.tar", samples, stand_in)
    return folder / "three.tar", samples


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(make_dataset(tmp_path_factory.mktemp("format") / "tiny-v1"))


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shard") / "train" / "five.tar"
    write_shard(path, SAMPLES)
    return path


# The bytes of a shard


def test_a_dataset_made_again_under_another_name_is_the_same_but_for_the_name(dataset: Dataset, tmp_path: Path) -> None:
    again = open_dataset(make_dataset(tmp_path / "other-v7"))
    assert again.manifest.fingerprint == dataset.manifest.fingerprint
    for split, entry in dataset.splits.items():
        assert [s.sha256 for s in again.splits[split].shards] == [s.sha256 for s in entry.shards]
    for name in ("stats.json", "index/train.npy", "index/val.npy"):
        assert (again.path / name).read_bytes() == (dataset.path / name).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_written_again_is_the_same_bytes(kind: str, tmp_path: Path) -> None:
    for name in ("one", "again"):
        written = write_shard(tmp_path / f"{name}.tar", make_samples(kind), stand_in)
        assert written.bytes == (tmp_path / f"{name}.tar").stat().st_size
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "one.tar").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_plain_ustar_without_time_owner_or_host(kind: str, tmp_path: Path) -> None:
    shard, samples = write_kind(kind, tmp_path)
    content = shard.read_bytes()
    with tarfile.open(shard, "r:") as tar:
        members = tar.getmembers()
        assert tar.pax_headers == {}
    assert [member.name for member in members] == [
        f"{s.record.key}.{suffix}" for s in samples for suffix in KINDS[kind]
    ]
    assert [m.name for m in members[: len(KINDS[kind])]] == sorted(m.name for m in members[: len(KINDS[kind])])
    for member in members:
        assert member.isreg()
        assert (member.mtime, member.mode, member.uid, member.gid) == (0, 0o444, 0, 0)
        assert (member.uname, member.gname, member.pax_headers) == ("", "", {})
        assert content[member.offset + 257 : member.offset + 265] == b"ustar\x0000"
        assert member.offset_data == member.offset + 512  # no block of its own for a long name or a float time
    assert len(content) % 512 == 0
    assert content.endswith(bytes(1024))
    last = members[-1]
    assert len(content) == last.offset_data + -(-last.size // 512) * 512 + 1024


@pytest.mark.parametrize("kind", KINDS)
def test_gnu_tar_lists_and_extracts_a_shard(kind: str, tmp_path: Path) -> None:
    shard, samples = write_kind(kind, tmp_path)
    listed = subprocess.run(["tar", "tf", shard], capture_output=True, text=True, check=True)
    assert len(listed.stdout.split()) == len(KINDS[kind]) * len(samples)
    assert listed.stderr == ""
    subprocess.run(["tar", "xf", shard, "-C", tmp_path], check=True)
    for sample in samples:
        held = {suffix: (tmp_path / f"{sample.record.key}.{suffix}").read_bytes() for suffix in KINDS[kind]}
        assert_holds(held, sample)


@pytest.mark.parametrize("kind", KINDS)
def test_stock_webdataset_reads_a_shard(kind: str, tmp_path: Path) -> None:
    shard, samples = write_kind(kind, tmp_path)
    read = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    assert [sample["__key__"] for sample in read] == [sample.record.key for sample in samples]
    for held, sample in zip(read, samples, strict=True):
        assert_holds({name: content for name, content in held.items() if not name.startswith("__")}, sample)


@pytest.mark.parametrize("kind", KINDS)
def test_grouping_by_the_name_up_to_the_first_dot_reads_a_shard(kind: str, tmp_path: Path) -> None:
    shard, samples = write_kind(kind, tmp_path)
    groups: list[dict[str, Any]] = []
    with tarfile.open(shard, "r|") as tar:  # as Hugging Face's reader does it: one pass, a new key a new sample
        for member in tar:
            key, _, suffix = member.name.partition(".")
            if not groups or groups[-1]["__key__"] != key:
                groups.append({"__key__": key})
            file = tar.extractfile(member)
            assert file is not None
            groups[-1][suffix] = file.read()
    assert [group.pop("__key__") for group in groups] == [sample.record.key for sample in samples]
    for held, sample in zip(groups, samples, strict=True):
        assert_holds(held, sample)


def assert_holds(held: dict[str, Any], sample: Sample) -> None:
    """Assert that members by suffix are those of a sample, and no others."""
    assert json.loads(held.pop("json")) == sample.record.model_dump(mode="json")
    for side in SIDES:
        stored = np.load(io.BytesIO(held.pop(f"{side}.npy")), allow_pickle=False)
        np.testing.assert_array_equal(stored, getattr(sample, side))
        assert stored.dtype == getattr(sample, side).dtype
    assert held == {f"{side}.flac": flac for side, flac in sample.audio.items()}
    for flac in held.values():
        sound, rate = soundfile.read(io.BytesIO(flac))
        assert (rate, sound.shape) == (24_000, (40 * 320,))


def test_arrays_are_npy_version_1_little_endian_in_c_order() -> None:
    array = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    payload = encode_array(array)
    assert payload[:8] == b"\x93NUMPY\x01\x00"
    header = payload[10 : 10 + int.from_bytes(payload[8:10], "little")].decode()
    assert "'descr': '<f4'" in header
    assert "'fortran_order': False" in header
    np.testing.assert_array_equal(decode_array(payload), array)


@pytest.mark.parametrize(("dtype", "shape"), [("<f2", (128, 40)), ("<f4", (128, 1200)), ("<f2", (1, 1))])
def test_the_header_that_readers_compare_is_the_one_that_writers_write(dtype: str, shape: tuple[int, int]) -> None:
    payload = encode_array(np.zeros(shape, dtype))
    header = array_header(np.dtype(dtype), shape)
    assert payload == header + bytes(np.zeros(shape, dtype).nbytes)


def test_an_array_payload_with_objects_or_trailing_bytes_is_refused() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="header is not in the plain"):
        decode_array(buffer.getvalue())
    with pytest.raises(ValueError, match="its header asks for"):
        decode_array(encode_array(np.zeros(3)) + b"\0")


def test_the_walk_finds_every_member_where_tarfile_finds_it(shard: Path) -> None:
    with tarfile.open(shard, "r:") as tar:
        expected = [(member.name, member.offset_data, member.size) for member in tar]
    assert [(f"{m.key}.{m.suffix}", m.offset, m.size) for m in walk(shard.read_bytes())] == expected


def _pax(path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(f"{'0' * 32}.json")
        info.mtime = 1.5  # what the stock writers do
        tar.addfile(info)


def _link(path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo(f"{'0' * 32}.json")
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, "/etc/passwd", 0o444
        tar.addfile(info)


def _time(path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo(f"{'0' * 32}.json")
        info.mtime, info.mode = 1_700_000_000, 0o444
        tar.addfile(info)


@pytest.mark.parametrize(("make", "message"), [(_pax, "unexpected member"), (_link, "plain form"), (_time, "plain")])
def test_the_walk_takes_no_other_tar(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    make(tmp_path / "other.tar")
    with pytest.raises(DatasetError, match=message):
        list(walk((tmp_path / "other.tar").read_bytes()))


# Keys


def test_a_key_names_the_content() -> None:
    fingerprint = codec_fingerprint(MDCT)
    key = sample_key(make_side("a.wav"), make_side("b.wav"), fingerprint)
    assert re.fullmatch("[0-9a-f]{32}", key)
    moved = make_side("a.wav").model_copy(update={"path": "elsewhere/a.wav"})
    assert sample_key(moved, make_side("b.wav"), fingerprint) == key
    others = {
        sample_key(make_side("a.wav", 1), make_side("b.wav"), fingerprint),
        sample_key(make_side("a.wav"), make_side("b.wav", 1), fingerprint),
        sample_key(make_side("c.wav"), make_side("b.wav"), fingerprint),
        sample_key(make_side("b.wav"), make_side("a.wav"), fingerprint),
        sample_key(make_side("a.wav"), make_side("b.wav"), codec_fingerprint(MDCT.model_copy(update={"hop": 160}))),
    }
    assert len(others | {key}) == 6


def golden_values() -> dict[str, Any]:
    text = (Path(__file__).parent.parent / "docs" / "shard-format.md").read_text()
    values: dict[str, Any] = json.loads(text.partition("```json\n")[2].partition("```")[0])
    return values


def test_the_keys_and_headers_of_the_documentation_are_true() -> None:
    """Whoever writes another reader compares with these numbers."""
    golden = golden_values()
    assert codec_fingerprint(MDCT) == golden["codec_fingerprint"]["mdct"]
    rhythm = make_side("a.wav").model_copy(update={"sha256": "11" * 32, "start": 0})
    harmony = make_side("b.wav").model_copy(update={"sha256": "22" * 32, "start": 384_000})
    assert sample_key(rhythm, harmony, codec_fingerprint(MDCT)) == golden["key"]
    header = golden["header"]
    assert hashlib.sha256(member_header(header["name"], header["size"])).hexdigest() == header["sha256"]


def test_the_order_of_the_documentation_is_true() -> None:
    golden = golden_values()
    for number, value in golden["splitmix64"].items():
        assert hex(int(splitmix64(np.array([int(number)], np.uint64))[0])) == value
    for path, value in golden["derive"].items():
        assert hex(derive(*map(int, path.split(",")))) == value
    for arguments, value in golden["permutation"].items():
        assert permutation(*map(int, arguments.split(","))).tolist() == value
    for epoch in golden["epochs"]:
        plan = OrderPlan(tuple(epoch["sizes"]), epoch["window"], epoch["partitions"], epoch["re_pair"])
        order = plan.epoch(epoch["seed"], epoch["epoch"])
        assert order.inputs.tolist() == epoch["inputs"]
        assert order.targets.tolist() == epoch.get("targets", epoch["inputs"])


@pytest.mark.parametrize("change", [{"weights_sha256": "0" * 64}, {"stage": "quantized"}, {"bandwidth": 6.0}])
def test_a_codec_fingerprint_changes_with_everything_that_latents_depend_on(change: dict[str, Any]) -> None:
    assert codec_fingerprint(MDCT.model_copy(update=change)) != codec_fingerprint(MDCT)


# What may be stored


def test_a_cast_to_float16_keeps_shape_and_reports_its_noise() -> None:
    latents = np.random.default_rng(0).standard_normal((128, 40)).astype(np.float32)
    stored, snr = cast(latents, "float16")
    assert stored.dtype == np.float16
    noise = latents.astype(np.float64) - stored
    assert snr == pytest.approx(10 * np.log10(np.square(latents, dtype=np.float64).sum() / np.square(noise).sum()))
    assert 70 < snr < 80


def test_an_exact_cast_is_json() -> None:
    stored, snr = cast(np.full((2, 3), 0.5, np.float32), "float16")
    assert json.dumps(snr) == "999.0"
    assert (stored == 0.5).all()
    assert cast(np.zeros((2, 3), np.float32), "float32")[1] == 999.0


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (np.nan, "float16", "not finite"),
        (np.inf, "float32", "not finite"),
        (-np.inf, "float16", "not finite"),
        (7e4, "float16", "range of float16.*--latents float32"),
        (-7e4, "float16", "range of float16"),
    ],
)
def test_one_bad_value_is_refused(value: float, dtype: Any, message: str) -> None:
    latents = np.ones((4, 5), np.float32)
    latents[3, 4] = value
    with pytest.raises(ValueError, match=message):
        cast(latents, dtype)


def test_a_cast_that_loses_too_much_is_refused_and_float32_takes_it() -> None:
    tiny = (np.random.default_rng(0).standard_normal((8, 9)) * 1e-6).astype(np.float32)
    with pytest.raises(ValueError, match=r"leaves \d+\.\d dB.*--latents float32"):
        cast(tiny, "float16")
    stored, _ = cast(tiny, "float32")
    np.testing.assert_array_equal(stored, tiny)


def test_flac_is_the_same_bytes_each_time_and_the_nearest_16_bit_sound() -> None:
    sound = np.random.default_rng(0).uniform(-0.9, 0.9, 12_345).astype(np.float32)
    flac = encode_flac(sound, 24_000)
    assert encode_flac(sound, 24_000) == flac
    heard = decode_flac(flac, 24_000)
    assert heard.dtype == np.float32
    assert np.abs(heard - sound).max() <= 0.5 / 32_768
    np.testing.assert_array_equal(decode_flac(encode_flac(heard, 24_000), 24_000), heard)


def test_flac_clips_what_lies_beyond_full_scale() -> None:
    heard = decode_flac(encode_flac(np.array([2.0, -2.0, 1.0, -1.0] * 100, np.float32), 24_000), 24_000)
    np.testing.assert_array_equal(heard[:4], np.array([32_767, -32_768, 32_767, -32_768]) / 32_768)


def test_other_audio_than_the_formats_is_refused() -> None:
    flac = encode_flac(np.zeros(5_000, np.float32), 24_000)
    wav, wide = io.BytesIO(), io.BytesIO()
    soundfile.write(wav, np.zeros(5_000), 24_000, format="WAV")
    soundfile.write(wide, np.zeros((5_000, 2)), 24_000, format="FLAC")
    for payload in (b"", b"fLaC", b"no audio" * 99, flac[: len(flac) // 2], wav.getvalue(), wide.getvalue()):
        with pytest.raises(ValueError, match=r"it can't be decoded|not mono 16-bit FLAC|are missing"):
            decode_flac(payload, 24_000)
    with pytest.raises(ValueError, match="not mono 16-bit FLAC at 48000 Hz"):
        decode_flac(flac, 48_000)


def test_a_shard_of_samples_with_and_without_audio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="some samples have audio that others lack"):
        write_shard(tmp_path / "mixed.tar", [make_sample(0), make_sample(1, audio=("target",))])
    assert list(tmp_path.iterdir()) == []


def test_a_shard_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        write_shard(tmp_path / "none.tar", [])
    assert list(tmp_path.iterdir()) == []


# Whole or not there


def test_an_error_in_the_middle_of_a_shard_leaves_nothing(tmp_path: Path) -> None:
    broken = dataclasses.replace(SAMPLES[1], target=np.array([[object()]]))
    with pytest.raises(ValueError, match="Object arrays"):
        write_shard(tmp_path / "train" / "half.tar", [SAMPLES[0], broken])
    assert list((tmp_path / "train").iterdir()) == []


def test_an_error_in_the_middle_leaves_an_older_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:  # noqa: PT012
        file.write(b"new, but only ha")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_name_appears_only_when_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_file(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"half"


# The manifest


def _content(dataset: Dataset) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((dataset.path / "dataset.json").read_bytes())
    return content


@pytest.fixture
def copy(dataset: Dataset, tmp_path: Path) -> Path:
    """A dataset's documents, to be changed."""
    shutil.copy(dataset.path / "dataset.json", tmp_path)
    return tmp_path


def test_a_manifest_survives_the_disk(dataset: Dataset) -> None:
    assert read_manifest(dataset.path) == dataset.manifest
    assert fingerprint(_content(dataset)) == dataset.manifest.fingerprint
    assert [(name, entry.samples) for name, entry in dataset.splits.items()] == [("train", 23), ("val", 4)]
    assert [s.samples for s in dataset.splits["train"].shards] == [10, 10, 3]
    assert dataset.splits["train"].groups == 3


def test_the_fingerprint_does_not_depend_on_name_and_build(dataset: Dataset) -> None:
    build = Build(git_commit="f" * 40, versions={"numpy": "9"}, config={"seed": 3})
    other = dataset.manifest.model_copy(update={"name": "other", "build": build})
    assert fingerprint(other.model_dump(mode="json")) == dataset.manifest.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"window_samples": 1},
        {"pairing": {"mode": "cross"}},
        {"codec": MDCT.model_copy(update={"hop": 160})},
        {"rejected": {"silent": 1}},
        {"parents": ("0" * 64,)},
        {"schema_version": "2.99.0"},
    ],
)
def test_the_fingerprint_changes_with_the_content(dataset: Dataset, change: dict[str, Any]) -> None:
    other = dataset.manifest.model_copy(update=change)
    assert fingerprint(other.model_dump(mode="json")) != dataset.manifest.fingerprint


def test_the_fingerprint_changes_with_one_value_of_one_sample(dataset: Dataset, tmp_path: Path) -> None:
    others = [
        make_dataset(tmp_path / "seed", seed=1),
        make_dataset(tmp_path / "sizes", {"train": (10, 13), "val": (4,)}),
    ]
    found = {read_manifest(path).fingerprint for path in others} | {dataset.manifest.fingerprint}
    assert len(found) == 3


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((path / "dataset.json").read_bytes())
    change(content)
    (path / "dataset.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["splits"]["train"]["shards"][0].update(samples=11), "does not match its fingerprint"),
        (lambda m: m["pairing"].update(seed=1), "does not match its fingerprint"),
        (lambda m: m.update(schema_version="3.0.0"), "written in format 3.0.0, this reader knows 2.*; update"),
        (lambda m: m.pop("schema_version"), "written in format"),
        (lambda m: m.update(format="something"), "no manifest of cascadence-latents"),
        (lambda m: m.update(extra=1), "extra: .*not permitted"),
        (lambda m: m["codec"].pop("stage"), r"codec\.stage: Field required"),
        (lambda m: m["splits"]["val"]["shards"][0].update(bytes="many"), r"splits\.val\.shards\.0\.bytes"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(
    copy: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    _edit(copy, change)
    with pytest.raises(DatasetError, match=message) as raised:
        read_manifest(copy)
    assert str(raised.value).startswith(f"{copy / 'dataset.json'}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_manifest_that_is_no_document_is_refused(copy: Path, content: bytes) -> None:
    (copy / "dataset.json").write_bytes(content)
    with pytest.raises(CascadenceError, match=re.escape(str(copy / "dataset.json"))):
        read_manifest(copy)


def test_a_manifest_whose_fields_are_not_those_of_its_codec_is_refused(copy: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["fields"][0]["dtype"] = "int16"
        content["fingerprint"] = fingerprint(content)

    _edit(copy, change)
    with pytest.raises(DatasetError, match="int16 where the codec's stage is `quantized`, and only there"):
        read_manifest(copy)


def test_an_older_format_is_refused_with_another_mend(copy: Path) -> None:
    _edit(copy, lambda m: m.update(schema_version="1.0.0"))
    with pytest.raises(
        DatasetError, match=r"written in format 1\.0\.0, this reader knows 2.*; encode the dataset again"
    ):
        read_manifest(copy)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dataset_of_any_kind_says_so_and_reads_back(kind: str, tmp_path: Path) -> None:
    opened = open_dataset(make_dataset(tmp_path / "x", {"train": (2, 1)}, **kind_options(kind)))
    stored = kind.partition(" and ")[0]
    shape, dtype = ((8, 40), "int16") if stored == "codes" else ((128, 40), stored)
    assert [(field.dtype, field.shape) for field in opened.manifest.fields] == [(dtype, shape)] * 2
    assert (opened.codec.stage == "quantized") == (stored == "codes")
    assert opened.manifest.audio == kind_options(kind)["audio"]
    for number in range(3):
        sample = make_sample(number, group=f"train-{number}", **kind_options(kind))
        read = opened.read(opened.locate(f"train:{number}"))
        assert (read.record, read.audio) == (sample.record, sample.audio)
        for side in SIDES:
            np.testing.assert_array_equal(getattr(read, side), getattr(sample, side))
            assert getattr(read, side).dtype == dtype
    result = audit.verify(tmp_path / "x", "full")
    assert (result.problems, result.samples) == ((), 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.dataset.crc32", lambda payload: 0)
        with pytest.raises(DatasetError, match="is damaged"):
            opened.read(opened.locate("0"))


def test_batches_of_codes_are_as_they_are_stored(tmp_path: Path) -> None:
    opened = open_dataset(make_dataset(tmp_path / "x", {"train": (4,)}, codec=CODES))
    (batch,) = opened.loader("train", 4, mode="evaluate")
    assert (str(batch.input.dtype), tuple(batch.target.shape)) == ("torch.int16", (4, 8, 40))
    samples = [make_sample(number, codec=CODES, group=f"train-{number % 3}") for number in range(4)]
    np.testing.assert_array_equal(batch.input.numpy(), np.stack([sample.input for sample in samples]))
    np.testing.assert_array_equal(batch.target.numpy(), np.stack([sample.target for sample in samples]))


def test_audio_that_is_not_there_is_misuse(tmp_path: Path) -> None:
    opened = open_dataset(make_dataset(tmp_path / "x", {"train": (2,)}, audio=("target",)))
    place = opened.locate("0")
    assert opened.payload(place, "target_flac").startswith(b"fLaC")
    with pytest.raises(MisuseError, match=r"holds no input\.flac; encode it again with .*--audio both"):
        opened.payload(place, "input_flac")


# The index


def test_a_row_is_128_bytes_laid_out_as_documented() -> None:
    assert INDEX_DTYPE.itemsize == 128
    assert INDEX_DTYPE.fields is not None
    assert {name: (str(kind[0]), kind[1]) for name, kind in INDEX_DTYPE.fields.items()} == {
        "key": ("|S32", 0),
        "shard": ("uint32", 32),
        "position": ("uint32", 36),
        **{
            f"{member}_{what}": (kind, place + 16 * number)
            for number, member in enumerate(("input", "json", "target", "input_flac", "target_flac"))
            for what, kind, place in (("offset", "uint64", 40), ("bytes", "uint32", 48), ("crc32", "uint32", 52))
        },
        "input_rms": ("float32", 120),
        "target_rms": ("float32", 124),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_index_of_any_kind_can_be_rebuilt_and_says_where_audio_lies(kind: str, tmp_path: Path) -> None:
    opened = open_dataset(make_dataset(tmp_path / "x", {"train": (2, 1)}, **kind_options(kind)))
    index = opened.index("train")
    rebuilt = build_index(rows_from_shard(opened.path / s.file) for s in opened.splits["train"].shards)
    np.testing.assert_array_equal(rebuilt, index)
    for side in SIDES:
        held = side in opened.manifest.audio
        assert (index[f"{side}_flac_bytes"] > 0).all() == held
        assert (index[f"{side}_flac_offset"] > 0).all() == held
        assert (index[f"{side}_flac_crc32"] > 0).all() == held


def test_the_index_can_be_rebuilt_from_the_shards_alone(dataset: Dataset) -> None:
    for split, entry in dataset.splits.items():
        rebuilt = build_index(rows_from_shard(dataset.path / shard.file) for shard in entry.shards)
        np.testing.assert_array_equal(rebuilt, load_index(dataset.index_path(split)))
        assert len(rebuilt) == entry.samples


def test_the_index_says_where_every_array_lies(dataset: Dataset) -> None:
    index = dataset.index("train")
    assert index["shard"].tolist() == [0] * 10 + [1] * 10 + [2] * 3
    assert index["position"].tolist() == [*range(10), *range(10), *range(3)]
    for number in (0, 9, 10, 22):
        row = index[number]
        with (dataset.path / dataset.splits["train"].shards[row["shard"]].file).open("rb") as file:
            file.seek(int(row["target_offset"]))
            payload = file.read(int(row["target_bytes"]))
        sample = make_sample(number, group=f"train-{number % 3}")
        assert row["key"].decode() == sample.record.key
        np.testing.assert_array_equal(decode_array(payload), sample.target)
        assert row["input_rms"] == np.float32(sample.record.input.rms)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing"),
        (b"", "another layout"),
        (b"\x93NUMPY\x01\x00 but no more", "another layout"),
        (encode_array(np.zeros(3)), "another layout"),
    ],
)
def test_an_index_that_is_none_is_one_clear_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "train.npy").write_bytes(content)
    with pytest.raises(DatasetError, match=message) as raised:
        load_index(tmp_path / "train.npy")
    assert "\n" not in str(raised.value)
    assert "shards index --rebuild" in str(raised.value)


@pytest.mark.parametrize("damage", ["cut", "empty", "member", "json", "key"])
def test_an_index_is_not_rebuilt_from_a_damaged_shard(shard: Path, damage: str, tmp_path: Path) -> None:
    content = bytearray(shard.read_bytes())
    members = list(walk(bytes(content)))
    match damage:
        case "cut":
            del content[2000:]
        case "empty":
            content.clear()
        case "member":  # the first sample loses its input
            del content[: members[1].offset - 512]
        case "json":
            content[members[1].offset] = ord("!")
        case "key":  # the record is another sample's
            place = content.index(b'"key":"') + len(b'"key":"')
            content[place : place + 32] = b"0" * 32
    (tmp_path / "damaged.tar").write_bytes(content)
    with pytest.raises(DatasetError, match=re.escape(str(tmp_path / "damaged.tar"))):
        rows_from_shard(tmp_path / "damaged.tar")


# Publication


def test_statistics_are_those_of_all_the_data(dataset: Dataset) -> None:
    stats = json.loads((dataset.path / "stats.json").read_bytes())
    samples = [make_sample(n, group=f"train-{n % 3}") for n in range(23)]
    samples += [make_sample(n, "val", group=f"val-{n % 3}") for n in range(23, 27)]
    assert set(stats) == {"input", "target"}
    for side in ("input", "target"):
        values = np.concatenate([getattr(sample, side) for sample in samples], axis=1).astype(np.float64)
        np.testing.assert_allclose(stats[side]["mean"], values.mean(1), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(stats[side]["std"], values.std(1), rtol=1e-9)
        np.testing.assert_allclose(stats[side]["rms"], np.sqrt(np.square(values).mean(1)), rtol=1e-9)
        np.testing.assert_array_equal(stats[side]["min"], values.min(1))
        np.testing.assert_array_equal(stats[side]["max"], values.max(1))


def test_the_card_has_the_numbers(dataset: Dataset) -> None:
    card = (dataset.path / "README.md").read_text()
    assert card.startswith("---\npretty_name: tiny-v1\n")
    assert dataset.manifest.fingerprint in card
    assert "| train | 23 | 3 | 0.003 | 3 |" in card  # 23 windows of 40 * 320 samples at 24 kHz
    assert "| val | 4 | 3 | 0.001 | 1 |" in card
    assert "| `input` | rhythm | float16 | [128, 40] |" in card
    assert "0.533333 s of audio" in card


def test_a_published_dataset_is_sound_and_nothing_else_is_left(dataset: Dataset) -> None:
    result = audit.verify(dataset.path, "sha256")
    assert (result.problems, result.shards, result.samples) == ((), 4, 27)
    assert [path.name for path in dataset.path.parent.iterdir()] == ["tiny-v1"]


def _publish(folder: Path, samples: dict[str, list[Sample]], rejected: int = 0) -> Manifest:
    receipts = [
        make_receipt(partial_folder(folder), f"{split}/x-{split}-000000.tar", own) for split, own in samples.items()
    ]
    reject = Reject(input="a", target="b", side="input", reason="silent", detail="a: no sound")
    empty = receipts[0].model_copy(
        update={"shard": "train/x-train-000001.tar", "samples": 0, "sha256": None, "rows": (), "statistics": {}}
        | {"groups": (), "rejected": (reject,) * rejected}
    )
    return publish(folder, make_header("x"), [*receipts, empty])


def test_refused_pairs_are_counted_and_a_shard_without_samples_is_left_out(tmp_path: Path) -> None:
    manifest = _publish(tmp_path / "x", {"train": SAMPLES}, rejected=2)
    assert manifest.rejected == {"silent": 2}
    assert [shard.file for shard in manifest.splits["train"].shards] == ["train/x-train-000000.tar"]
    assert audit.verify(tmp_path / "x", "sha256").problems == ()


def test_two_samples_of_one_key_are_refused(tmp_path: Path) -> None:
    twins = {"train": [*SAMPLES, make_sample(2)]}
    key = SAMPLES[2].record.key
    with pytest.raises(
        DatasetError, match=rf"sample {key} is there twice, as train/\S+#2 and as train/\S+#5.*pairs file"
    ):
        _publish(tmp_path / "x", twins)
    assert not (tmp_path / "x").exists()


def test_publication_writes_the_receipts_that_are_not_there(tmp_path: Path) -> None:
    _publish(tmp_path / "x", {"train": SAMPLES}, rejected=2)
    receipts = sorted((tmp_path / "x" / "receipts").iterdir())
    assert [path.name for path in receipts] == ["x-train-000000.tar.json", "x-train-000001.tar.json"]
    assert [json.loads(path.read_bytes())["samples"] for path in receipts] == [5, 0]
    assert audit.verify(tmp_path / "x", "full").problems == ()


def test_codes_are_measured_as_the_latents_that_they_stand_for(tmp_path: Path) -> None:
    make_dataset(tmp_path / "x", {"train": (3,)}, codec=CODES)
    stats = json.loads((tmp_path / "x" / "stats.json").read_bytes())
    latents = [stand_in(make_sample(number, codec=CODES).target) for number in range(3)]
    assert len(stats["target"]["mean"]) == 128
    np.testing.assert_allclose(stats["target"]["mean"], np.concatenate(latents, 1).mean(1), rtol=1e-6)


def test_codes_written_without_their_codec_have_no_statistics(tmp_path: Path) -> None:
    written = write_shard(tmp_path / "x.partial" / "train" / "x-train-000000.tar", make_samples("codes"))
    assert written.statistics == {}
    receipt = make_receipt(tmp_path / "x.partial", "train/x-train-000000.tar", make_samples("codes"))
    publish(tmp_path / "x", make_header("x", codec=CODES), [receipt.model_copy(update={"statistics": {}})])
    assert json.loads((tmp_path / "x" / "stats.json").read_bytes()) == {}
    assert audit.verify(tmp_path / "x", "full").problems == ()


def test_the_card_names_codes_and_audio(tmp_path: Path) -> None:
    card = (make_dataset(tmp_path / "x", {"train": (1,)}, codec=CODES, audio=BOTH) / "README.md").read_text()
    assert "| `target` | harmony | int16 | [8, 40] |" in card
    assert "Codes of the quantized latents of pairs" in card
    assert "`<key>.input.flac`, `<key>.input.npy`, `<key>.json`, `<key>.target.flac`, `<key>.target.npy`." in card


def test_a_track_in_two_splits_is_refused(tmp_path: Path) -> None:
    leaked = {"train": SAMPLES, "val": [make_sample(9, "val", group="train-0")]}
    with pytest.raises(DatasetError, match="'train-0' lies in the splits train and val; pair the sources again"):
        _publish(tmp_path / "x", leaked)
    assert not (tmp_path / "x").exists()
    with pytest.raises(DatasetError, match="was not finished"):
        read_manifest(tmp_path / "x")


def test_a_dataset_of_nothing_is_refused(tmp_path: Path) -> None:
    partial_folder(tmp_path / "x").mkdir()
    with pytest.raises(DatasetError, match="every pair was refused"):
        publish(tmp_path / "x", make_header("x"), [])
    assert not (tmp_path / "x").exists()


def test_a_published_dataset_is_never_replaced(tmp_path: Path) -> None:
    make_dataset(tmp_path / "x", {"train": (2,)})
    before = read_manifest(tmp_path / "x")
    with pytest.raises(DatasetError, match="exists"):
        make_dataset(tmp_path / "x", {"train": (3,)})
    assert read_manifest(tmp_path / "x") == before
    assert audit.verify(tmp_path / "x", "sha256").problems == ()

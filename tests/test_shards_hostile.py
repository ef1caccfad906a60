"""Tars, manifests and indexes made to do harm, and random damage: refused, cheaply, and nothing is run."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from command import assert_one_line, run_shards
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from make_data import make_dataset

from shards.audit import verify
from shards.dataset import Dataset, open_dataset
from shards.errors import DatasetError
from shards.files import sha256_file
from shards.index import load_index, rows_from_shard, save_index
from shards.manifest import fingerprint, read_manifest
from shards.reader import Loader  # here, so that no test's time and memory are those of importing torch
from shards.wire import BLOCK, END, SUFFIXES, encode_array, member_header, padding, walk

SHARD = "train/tiny-v1-train-000000.tar"
SAMPLES = 3
KEY = "0123456789abcdef" * 2
MEMORY = 30e6
SECONDS = 5.0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("hostile") / "tiny-v1"
    return open_dataset(make_dataset(folder, {"train": (SAMPLES, 2)}, frames=2))


@pytest.fixture
def copy(dataset: Dataset, tmp_path: Path) -> Path:
    return shutil.copytree(dataset.path, tmp_path / "work" / "copy")


@contextmanager
def harmless(folder: Path) -> Iterator[None]:
    """What is done inside leaves every file as it is, makes none, and takes little time and memory."""
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    tracemalloc.start()
    begun = time.perf_counter()
    try:
        yield
        assert time.perf_counter() - begun < SECONDS
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} == before


def forge_manifest(folder: Path, change: Callable[[Any], object] = lambda content: None) -> None:
    """Make the manifest name the shards and indexes as they are, and its own fingerprint, as an attacker can."""
    path = folder / "dataset.json"
    content = json.loads(path.read_bytes())
    for split, entry in content["splits"].items():
        entry["index_sha256"] = sha256_file(folder / "index" / f"{split}.npy")
        for shard in entry["shards"]:
            file = folder / shard["file"]
            shard |= {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
    change(content)
    content["fingerprint"] = fingerprint(content)
    path.write_text(json.dumps(content))


def load_all(dataset: Dataset, check_crc: bool = True) -> list[Any]:
    loader: Loader = dataset.loader("train", 1, mode="evaluate", check_crc=check_crc)
    return list(loader)


def one_line(error: BaseException) -> str:
    text = str(error)
    assert text.isprintable(), text
    return text


# Headers


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **more: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode, info.mtime = kind, size, 0o444, 0
    for key, value in more.items():
        setattr(info, key, value)
    return info


def tar_of(info: tarfile.TarInfo, form: int = tarfile.GNU_FORMAT) -> bytes:
    """The headers and the payload of one member, as Python's tar writer makes them."""
    payload = bytes(info.size) if 0 < info.size < 10_000 else b""
    return info.tobuf(form, "utf-8", "surrogateescape") + payload + padding(len(payload))


def sparse(claim: int) -> bytes:
    """A GNU sparse member that claims to be `claim` bytes when it is unpacked."""
    block = bytearray(member(f"{KEY}.input.npy", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0%011o\0" % (0, 0)
    block[483:495] = claim.to_bytes(12, "big")
    block[483] |= 0x80
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


NAME = f"{KEY}.input.npy"
HEADERS: dict[str, bytes] = {
    "parent folder": tar_of(member("../../evil.input.npy", size=10)),
    "parent folder around a key": tar_of(member(f"../{NAME}", size=10)),
    "absolute": tar_of(member("/tmp/evil.input.npy", size=10)),
    "absolute key": tar_of(member(f"/{NAME}", size=10)),
    "dot": tar_of(member(f"./{NAME}", size=10)),
    "backslash": tar_of(member(f"..\\{NAME}", size=10)),
    "empty name": tar_of(member("", size=10)),
    "newline and escape": tar_of(member("evil\n\x1b[31mname.json", size=10)),
    "symlink": tar_of(member(NAME, tarfile.SYMTYPE, linkname="/etc/passwd")),
    "hard link": tar_of(member(NAME, tarfile.LNKTYPE, linkname="../../x")),
    "folder": tar_of(member(NAME, tarfile.DIRTYPE)),
    "character device": tar_of(member(NAME, tarfile.CHRTYPE, devmajor=1, devminor=5)),
    "block device": tar_of(member(NAME, tarfile.BLKTYPE, devmajor=8)),
    "fifo": tar_of(member(NAME, tarfile.FIFOTYPE)),
    "contiguous": tar_of(member(NAME, tarfile.CONTTYPE, size=10)),
    "sparse claim of 10 GB": sparse(10 * 2**30),
    "plain claim of 10 GB": tar_of(member(NAME, size=10 * 2**30)),
    "plain claim of 8 GB": tar_of(member(NAME, size=8 * 2**30 - 1)),
    "negative size": tar_of(member(NAME, size=-512)),
    "pax header": tar_of(member(NAME, size=10, pax_headers={"comment": "x"}), tarfile.PAX_FORMAT),
    "pax header of a long name": tar_of(member("x" * 300, size=10), tarfile.PAX_FORMAT),
    "pax global header": tarfile.TarInfo.create_pax_global_header({"path": "../../evil"}),
    "gnu long name": tar_of(member("x" * 300, size=10)),
    "gnu long link": tar_of(member(NAME, tarfile.SYMTYPE, linkname="x" * 300)),
    "not UTF-8": tar_of(member("\udcff\udcfe.input.npy", size=10)),
    "not ASCII": tar_of(member(f"{KEY[:-1]}é.input.npy", size=10)),
    "fullwidth digits": tar_of(member("\uff11" * 32 + ".input.npy", size=10)),
    "owner": tar_of(member(NAME, size=10, uname="root")),
    "set-user-id": tar_of(member(NAME, size=10, mode=0o4755)),
    "time": tar_of(member(NAME, size=10, mtime=1)),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_hostile_header_is_refused(copy: Path, kind: str) -> None:
    shard = copy / SHARD
    shard.write_bytes(HEADERS[kind] + shard.read_bytes())
    forge_manifest(copy)
    key = load_index(copy / "index/train.npy")["key"][0].decode()
    with harmless(copy.parent.parent):
        for path, name in ((shard, shard.name), (copy, SHARD)):
            outcome = run_shards("verify", path)
            assert outcome.code == 1
            assert outcome.err.startswith(f"bad {name}: ")
            assert "\x1b" not in outcome.err
            assert all(line.startswith("bad ") and line.isprintable() for line in outcome.err.splitlines())
        assert_one_line(run_shards("show", copy, "0"), 1, str(shard), key)
        assert_one_line(run_shards("index", copy, "--rebuild"), 1, str(shard))
        with pytest.raises(DatasetError) as refused:
            load_all(open_dataset(copy))
    assert key in one_line(refused.value)
    assert str(shard) in str(refused.value)


def test_a_hostile_header_after_sound_samples_is_found_by_verify_and_not_unpacked(copy: Path) -> None:
    shard = copy / SHARD
    content = shard.read_bytes()[: -len(END)]
    for extra in HEADERS.values():
        shard.write_bytes(content + extra + END)
        with harmless(copy.parent.parent):
            audit = verify(shard, "crc")
        assert audit.samples == SAMPLES
        assert any(problem.key is None for problem in audit.problems)


@pytest.mark.parametrize("size", [10 * 2**30, 8 * 2**30 - 512, 2**31])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_member_that_is_many_gigabytes_of_holes_is_not_read(
    copy: Path, tmp_path: Path, suffix: str, size: int
) -> None:
    shard = tmp_path / "holes.tar"
    array = npy(header(f"(128, {(size - 128) // 256})"))
    with shard.open("wb") as file:
        for one, (name, own) in zip(
            blocks(copy / SHARD)[:3], zip(SUFFIXES, [array, b"", array], strict=True), strict=True
        ):
            if name != suffix:
                file.write(one)
                continue
            form = tarfile.USTAR_FORMAT if size < 8 * 2**30 else tarfile.GNU_FORMAT  # ustar counts no further
            file.write(member(f"{key_of(one)}.{name}", size=size).tobuf(form) + own)
            file.seek(size - len(own), io.SEEK_CUR)
        file.write(END)
    with harmless(tmp_path):
        assert verify(shard, "sha256").problems
        with pytest.raises(DatasetError):
            rows_from_shard(shard)


def key_of(block: bytes) -> str:
    return block[:32].decode()


# Samples in another order, and names twice


def blocks(shard: Path) -> list[bytes]:
    """The members of a shard: header, payload and padding of each."""
    content = shard.read_bytes()
    starts = [one.offset - BLOCK for one in walk(content)]
    return [content[a:b] for a, b in zip(starts, [*starts[1:], len(content) - len(END)], strict=True)]


ORDERS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a name twice": lambda m: [m[0], m[0], *m[1:]],
    "a sample twice": lambda m: [*m[:3], *m],
    "members out of order": lambda m: [m[2], m[1], m[0], *m[3:]],
    "json first": lambda m: [m[1], m[0], m[2], *m[3:]],
    "two samples interleaved": lambda m: [m[0], m[3], m[1], m[4], m[2], m[5], *m[6:]],
    "samples exchanged": lambda m: [*m[3:6], *m[:3], *m[6:]],
    "a target of another sample": lambda m: [m[0], m[1], m[5], m[3], m[4], m[2], *m[6:]],
}


@pytest.mark.parametrize("kind", ORDERS)
def test_members_twice_or_out_of_order_are_refused(copy: Path, kind: str) -> None:
    shard = copy / SHARD
    keys = [key.decode() for key in load_index(copy / "index/train.npy")["key"]]
    shard.write_bytes(b"".join(ORDERS[kind](blocks(shard))) + END)
    forge_manifest(copy)
    with harmless(copy.parent.parent):
        audit = verify(copy, "crc")
        assert {problem.key for problem in audit.problems} & set(keys[:3])
        assert {problem.file for problem in audit.problems} == {SHARD}
        if kind != "samples exchanged":  # sound by itself: the index alone knows the order
            assert verify(shard, "structure").problems
        shown = [run_shards("show", copy, number) for number in range(SAMPLES)]
        assert any(outcome.code for outcome in shown)
        for outcome in shown:
            if outcome.code:
                assert_one_line(outcome, 1, str(shard))
        with pytest.raises(DatasetError, match="is damaged"):
            load_all(open_dataset(copy))


# Payloads, in tars whose headers, index and manifest all fit them


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def npy(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode("latin-1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + body


def object_array(marker: Path) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([Bomb(marker)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def code(marker: Path) -> bytes:
    call = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    return npy(f"{{'descr': {call}, 'fortran_order': False, 'shape': (2, 2), }}", bytes(8))


def header(shape: str, descr: str = "<f2") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"


ARRAYS: dict[str, Callable[[Path], bytes]] = {
    "object array": object_array,
    "bare pickle": lambda marker: pickle.dumps(Bomb(marker)),
    "code in the header": code,
    "gigantic shape": lambda _: npy(header("(128, 100000000000)"), bytes(512)),
    "overflowing shape": lambda _: npy(header("(4294967296, 4294967296, 0)")),
    "numbers without end": lambda _: npy(header(f"({'9' * 120}, 0)")),
    "many dimensions": lambda _: npy(header("(" + "1," * 80 + ")"), bytes(2)),
    "no numbers": lambda _: npy(header("(1 2, , 3)"), bytes(12)),
    "negative shape": lambda _: npy(header("(-1, 2)"), bytes(512)),
    "empty array": lambda _: npy(header("(128, 0)")),
    "scalar": lambda _: npy(header("()"), bytes(2)),
    "other shape": lambda _: encode_array(np.zeros((2, 128), np.float16)),
    "other type": lambda _: encode_array(np.zeros((128, 1), np.float32)),
    "strings": lambda _: npy(header("(128,)", "|S4"), bytes(512)),
    "big-endian": lambda _: npy(header("(128, 2)", ">f2"), bytes(512)),
    "fortran order": lambda _: npy(header("(128, 2)").replace("False", "True"), bytes(512)),
    "version 2": lambda _: npy(header("(128, 2)"), bytes(512), b"\x02\x00"),
    "not finite": lambda _: encode_array(np.full((128, 2), np.nan, np.float16)),
    "nothing": lambda _: b"",
    "zip": lambda _: b"PK\x03\x04" + bytes(600),
}


def deep(levels: int) -> bytes:
    return b'{"x":' * levels + b"1" + b"}" * levels


def with_value(name: bytes, value: bytes) -> Callable[[bytes], bytes]:
    """Give one value of the record another text."""

    def change(payload: bytes) -> bytes:
        before, mark, rest = payload.partition(b'"%s":' % name)
        assert mark
        end = min(rest.index(b","), rest.index(b"}") if b"}" in rest else len(rest))
        return before + mark + value + rest[end:]

    return change


RECORDS: dict[str, Callable[[bytes], bytes]] = {
    "nested without end": lambda _: deep(100_000),
    "lists nested without end": lambda _: b"[" * 100_000,
    "huge integer": with_value(b"start", b"9" * 100_000),
    "integer past every clock": with_value(b"start", b"1e400"),
    "infinite number": with_value(b"rms", b"1e999"),
    "not a number": with_value(b"rms", b"NaN"),
    "number past float32": with_value(b"rms", b"1e300"),
    "a long list": with_value(b"rms", b"[" + b"0," * 100_000 + b"0]"),
    "megabytes": with_value(b"group", b'"' + b"x" * 3_000_000 + b'"'),
    "unknown key with a line and an escape": lambda p: p.replace(b'"group"', b'"gr\\n\\u001b[31mboo"'),
    "another key with a line": with_value(b"key", b'"a\\nb"'),
    "lone surrogate": with_value(b"group", b'"\\ud800"'),
    "not UTF-8": with_value(b"group", b'"\xff\xfe"'),
    "null": lambda _: b"null",
    "nothing": lambda _: b"",
}


def forge(folder: Path, suffix: str, payload: bytes) -> str:
    """Give the first sample of the shard another payload, with headers, crc, index and manifest to fit; its key."""
    path = folder / SHARD
    content = path.read_bytes()
    parts: list[bytes] = []
    for number, one in enumerate(walk(content)):
        own = payload if (number < 3 and one.suffix == suffix) else content[one.offset : one.offset + one.size]
        parts.append(member_header(f"{one.key}.{one.suffix}", len(own)) + own + padding(len(own)))
    path.write_bytes(b"".join(parts) + END)
    reindex(folder, [len(part) for part in parts], suffix, payload)
    forge_manifest(folder)
    return str(load_index(folder / "index/train.npy")["key"][0].decode())


def reindex(folder: Path, lengths: list[int], suffix: str, payload: bytes) -> None:
    from zlib import crc32

    index = np.array(load_index(folder / "index/train.npy"))
    starts = np.cumsum([0, *lengths])[:-1] + BLOCK
    for row in range(SAMPLES):
        for number, own in enumerate(SUFFIXES):
            index[f"{own.split('.')[0]}_offset"][row] = starts[3 * row + number]
    name = suffix.split(".")[0]
    index[f"{name}_bytes"][0], index[f"{name}_crc32"][0] = len(payload), crc32(payload)
    save_index(folder / "index/train.npy", index)


def assert_verify_names(folder: Path, key: str) -> None:
    outcome = run_shards("verify", folder)
    assert outcome.code == 1
    lines = outcome.err.splitlines()
    assert all(line.startswith("bad ") and line.isprintable() for line in lines), lines
    assert any(line.startswith(f"bad {SHARD}: sample {key}: ") for line in lines), lines


@pytest.mark.parametrize("side", ["input", "target"])
@pytest.mark.parametrize("kind", ARRAYS)
def test_a_hostile_array_is_refused(copy: Path, tmp_path: Path, side: str, kind: str) -> None:
    marker = tmp_path / "marker"
    key = forge(copy, f"{side}.npy", ARRAYS[kind](marker))
    with harmless(tmp_path):
        assert_verify_names(copy, key)
        verify(copy / SHARD, "crc")
        if kind != "not finite":  # a value, which show tells and the training step refuses
            assert_one_line(run_shards("show", copy, "0"), 1, str(copy / SHARD), key, side)
            for check_crc in (True, False):
                with pytest.raises(DatasetError) as refused:
                    load_all(open_dataset(copy), check_crc)
                assert key in one_line(refused.value)
                assert SHARD in str(refused.value)
    assert not marker.exists()
    assert run_shards("show", copy, "1").code == 0


@pytest.mark.parametrize("kind", RECORDS)
def test_a_hostile_record_is_refused(copy: Path, tmp_path: Path, kind: str) -> None:
    (first, *_) = [one for one in walk((copy / SHARD).read_bytes()) if one.suffix == "json"]
    payload = (copy / SHARD).read_bytes()[first.offset : first.offset + first.size]
    key = forge(copy, "json", RECORDS[kind](payload))
    with harmless(tmp_path):
        if kind == "megabytes":
            outcome = run_shards("verify", copy)
            assert outcome.code == 1
            assert key in outcome.err
        else:
            assert_verify_names(copy, key)
        assert_one_line(run_shards("show", copy, "0"), 1, str(copy / SHARD), key, "json")
        assert_one_line(run_shards("stats", copy), 1, str(copy / SHARD), key)
        assert_one_line(run_shards("index", copy), 1, str(copy / SHARD))
        assert len(load_all(open_dataset(copy))) == 5  # the loader reads no record


def test_what_a_record_says_reaches_the_terminal_without_its_escapes(copy: Path) -> None:
    (first, *_) = [one for one in walk((copy / SHARD).read_bytes()) if one.suffix == "json"]
    payload = (copy / SHARD).read_bytes()[first.offset : first.offset + first.size]
    forge(copy, "json", with_value(b"path", b'"\\u001b]0;evil\\u0007[red]x\\n"')(payload))
    outcome = run_shards("show", copy, "0")
    assert outcome.code == 0
    assert "\x1b" not in outcome.out
    assert "\x07" not in outcome.out
    assert r"\x1b]0;evil\x07[red]x\n" in outcome.out


# Documents


def no(content: Any) -> None:
    """Change nothing."""


MANIFESTS: dict[str, Callable[[Any], object]] = {
    "shard outside": lambda m: m["splits"]["train"]["shards"][0].update(file="../outside.tar"),
    "shard by an absolute path": lambda m: m["splits"]["train"]["shards"][0].update(file="/etc/passwd"),
    "split outside": lambda m: m["splits"].update({"../val": m["splits"]["train"]}),
    "shard name with a line": lambda m: m["splits"]["train"]["shards"][0].update(file="train/a\nb.tar"),
    "no fields": lambda m: m.update(fields=[]),
    "one field twice": lambda m: m.update(fields=[m["fields"][0]] * 2),
    "nothing of a codec": lambda m: m["codec"].update(hop=0, sample_rate=0),
    "unknown key with a line": lambda m: m.update({"a\nb": 1}),
    "negative counts": lambda m: m["splits"]["train"].update(samples=-1),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_hostile_manifest_is_refused(copy: Path, kind: str) -> None:
    shutil.copy(copy / SHARD, copy.parent / "outside.tar")
    forge_manifest(copy, MANIFESTS[kind])
    with harmless(copy.parent):
        for verb in (["info"], ["verify"], ["show", "0"], ["list"], ["index"], ["stats"]):
            assert_one_line(run_shards(verb[0], copy, *verb[1:]), 1, "dataset.json")


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000, b'{"format":' * 100_000, b"9" * 100_000, b"\xff\xfe", b"", b"null", b'"x"', b"NaN"],
)
def test_a_manifest_that_is_a_bomb_is_refused(copy: Path, text: bytes) -> None:
    (copy / "dataset.json").write_bytes(text)
    with harmless(copy.parent):
        for verb in ("info", "verify", "index"):
            assert_one_line(run_shards(verb, copy), 1, "dataset.json")


@pytest.mark.parametrize("value", ["NaN", "1e999", "[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900])
def test_a_manifest_with_a_value_that_has_no_fingerprint_is_refused(copy: Path, value: str) -> None:
    text = (copy / "dataset.json").read_text()
    (copy / "dataset.json").write_text(text.replace('"mode": "suffix"', f'"mode": {value}'))
    assert text != (copy / "dataset.json").read_text()
    for verb in ("info", "verify"):
        assert_one_line(run_shards(verb, copy), 1, "dataset.json")


INDEXES: dict[str, Callable[[Any], Any]] = {
    "a shard that is not there": lambda i: i["shard"].__setitem__(0, 4_000_000_000),
    "an offset past every file": lambda i: i["input_offset"].__setitem__(0, 2**64 - 1),
    "4 GB": lambda i: i["target_bytes"].__setitem__(0, 2**32 - 1),
    "1 GB": lambda i: i["input_bytes"].__setitem__(0, 2**30),
    "a key that is no text": lambda i: i["key"].__setitem__(0, b"\xff\x1b\n"),
    "too few rows": lambda i: i[:1],
    "no rows": lambda i: i[:0],
    "two dimensions": lambda i: i.reshape(1, -1),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_a_hostile_index_is_refused(copy: Path, kind: str) -> None:
    path = copy / "index/train.npy"
    index = np.array(load_index(path))
    changed = INDEXES[kind](index)
    save_index(path, index if changed is None else changed)
    forge_manifest(copy)
    with harmless(copy.parent):
        for verb in (["show", "0"], ["stats", "--recompute"]):
            assert_one_line(run_shards(verb[0], copy, *verb[1:]), 1, str(copy))
        outcome = run_shards("verify", copy)
        assert outcome.code == 1
        assert all(line.startswith("bad ") and line.isprintable() for line in outcome.err.splitlines())
        assert run_shards("index", copy).code == 1
        for check_crc in (True, False):
            with pytest.raises(DatasetError) as refused:
                load_all(open_dataset(copy), check_crc)
            one_line(refused.value)


def test_an_index_of_objects_is_not_unpickled(copy: Path, tmp_path: Path) -> None:
    (copy / "index/train.npy").write_bytes(object_array(tmp_path / "marker"))
    forge_manifest(copy)
    for verb in (["show", "0"], ["list"], ["stats"]):
        assert_one_line(run_shards(verb[0], copy, *verb[1:]), 1, "index/train.npy")
    assert run_shards("verify", copy).code == run_shards("index", copy).code == 1
    assert not (tmp_path / "marker").exists()


def test_a_stray_file_whose_name_is_no_text_is_named(copy: Path) -> None:
    try:
        (copy / "train" / "\udcff\n\x1b.tar").touch()
    except OSError:
        pytest.skip("this file system takes only text for names")
    outcome = run_shards("verify", copy)
    assert outcome.code == 1
    assert outcome.err == "bad train/\\udcff\\n\\x1b.tar: is not in the manifest; delete it\n"
    assert run_shards("verify", copy, "--json").code == 1


# Random damage


class Damage(NamedTuple):
    """One change of a file: its kind, and two numbers that say where and what."""

    kind: str
    a: int
    b: int


DAMAGES = st.builds(
    Damage,
    st.sampled_from(["flip", "bit", "cut", "insert", "remove", "swap", "repeat", "zero", "append", "splice"]),
    st.integers(0, 2**20),
    st.integers(1, 2**20),
)


def damage(content: bytes, how: Damage) -> bytes:
    """Apply a change; positions wrap around."""
    a, b = how.a % len(content), how.b % len(content)
    count = max(len(content) // BLOCK, 1)
    first, second = (n % count * BLOCK for n in (how.a, how.b))
    one, two = content[first : first + BLOCK], content[second : second + BLOCK]
    match how.kind:
        case "flip":
            return content[:a] + bytes([content[a] ^ (how.b % 255 + 1)]) + content[a + 1 :]
        case "bit":
            return content[:a] + bytes([content[a] ^ (1 << how.b % 8)]) + content[a + 1 :]
        case "cut":
            return content[:a]
        case "insert":
            return content[:a] + bytes([how.b % 256]) + content[a:]
        case "remove":
            return content[:a] + content[a + 1 + how.b % 600 :]
        case "swap":
            parts = bytearray(content)
            parts[first : first + BLOCK], parts[second : second + BLOCK] = two, one
            return bytes(parts)
        case "repeat":
            return content[:first] + one + content[first:]
        case "zero":
            return content[:first] + bytes(BLOCK) + content[first + BLOCK :]
        case "append":
            return content + content[a : a + b % 2000 + 1]
        case _:
            return content[:first] + two + content[first + BLOCK :]


FUZZ = settings(
    max_examples=120,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def fuzzed(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(dataset.path, tmp_path_factory.mktemp("fuzz") / "copy")


@FUZZ
@given(st.lists(DAMAGES, min_size=1, max_size=2))
def test_random_damage_of_a_shard_is_found_and_raises_nothing_else(
    dataset: Dataset, fuzzed: Path, how: list[Damage]
) -> None:
    whole = (dataset.path / SHARD).read_bytes()
    content = whole
    for one in how:
        content = damage(content, one) if content else content
    assume(content != whole)
    (fuzzed / SHARD).write_bytes(content)
    for level in ("structure", "crc", "sha256"):
        problems = verify(fuzzed, level).problems
        assert all(str(problem).isprintable() for problem in problems)
        assert all(problem.file == SHARD for problem in problems)
        # No byte of a shard lies outside headers, payloads, padding and the end marker.
        assert problems or level == "structure"
        verify(fuzzed / SHARD, level)
    with suppress(DatasetError):
        rows_from_shard(fuzzed / SHARD)
    opened, sound = Dataset(fuzzed, read_manifest(fuzzed)), dataset
    for number in range(SAMPLES):
        with suppress(DatasetError):
            sample = opened.read(opened.locate(f"train:{number}"))
            truth = sound.read(sound.locate(f"train:{number}"))
            assert sample.record == truth.record
            np.testing.assert_array_equal(sample.input, truth.input)
            np.testing.assert_array_equal(sample.target, truth.target)
    with suppress(DatasetError):
        for batch, right in zip(load_all(opened), load_all(sound), strict=True):
            assert batch.keys == right.keys
            assert bool((batch.input == right.input).all())
            assert bool((batch.target == right.target).all())
    with suppress(DatasetError):
        load_all(opened, check_crc=False)


def test_no_byte_of_a_shard_can_change_unseen(dataset: Dataset, fuzzed: Path) -> None:
    whole = (dataset.path / SHARD).read_bytes()
    for place in range(0, len(whole), 173):
        (fuzzed / SHARD).write_bytes(damage(whole, Damage("bit", place, place)))
        assert verify(fuzzed, "crc").problems, place


@settings(FUZZ, max_examples=60)
@given(st.sampled_from(["dataset.json", "index/train.npy"]), DAMAGES)
def test_random_damage_of_the_documents_raises_nothing_else(dataset: Dataset, name: str, how: Damage) -> None:
    folder = dataset.path.with_name("documents")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(dataset.path, folder)
    whole = (folder / name).read_bytes()
    content = damage(whole, how)
    assume(content != whole)
    (folder / name).write_bytes(content)
    with suppress(DatasetError):
        assert verify(folder, "structure").problems or json.loads(content) == json.loads(whole)
    with suppress(DatasetError):
        opened = Dataset(folder, read_manifest(folder))
        opened.read(opened.locate("train:0"))
    with suppress(DatasetError):
        load_all(Dataset(folder, read_manifest(folder)))

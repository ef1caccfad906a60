"""What an encode job survives: kills, stops, a full disk, rivals, changed and deadly files; nothing lost or twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from make_tracks import OPTIONS, PAIRS, SHARDS, TWO_A_SHARD, files, paired
from preloaded import Preloaded, preloaded

from pipeline import job
from pipeline.config import EncoderConfig
from pipeline.encode import encode_dataset, encode_locally
from pipeline.job import ShardEncoder, encode_with_ray
from pipeline.observer import Observer
from pipeline.pairing import read_pairs, write_pairs
from pipeline.plan import ShardPlan
from pipeline.trial import TRIES
from shards import console
from shards.audit import verify
from shards.dataset import open_dataset
from shards.errors import CascadenceError
from shards.schema import Receipt


@pytest.fixture(scope="session")
def many(tracks: Path) -> Path:
    """A pairs file of many short windows: work for a while."""
    write_pairs(tracks / "many.jsonl", paired(tracks / "wav", seconds=0.05))
    return tracks / "many.jsonl"


@pytest.fixture(scope="session")
def undisturbed_many(many: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every file of its dataset when nothing goes wrong, and its hash."""
    folder = tmp_path_factory.mktemp("many") / "ds"
    encode_dataset(read_pairs(many), folder, TWO_A_SHARD, encode_locally)
    return files(folder)


@pytest.fixture(scope="module")
def commands() -> Iterator[Preloaded]:
    with preloaded() as process:
        yield process


def undisturbed_shards(expected: dict[str, str]) -> list[str]:
    return [name for name in expected if name.endswith(".tar")]


def assert_undisturbed(folder: Path, expected: dict[str, str]) -> None:
    """Assert that a dataset is what it would be had nothing gone wrong, and that nothing lies beside it."""
    assert files(folder) == expected
    assert verify(folder, "full").problems == ()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def assert_what_is_there_is_sound(staging: Path, expected: dict[str, str]) -> int:
    """Assert that every shard with a receipt is whole and right, whenever the job was killed; gives their count."""
    receipts = list(staging.glob("receipts/*.tar.json"))
    for path in receipts:
        receipt = Receipt.model_validate_json(path.read_bytes())
        content = (staging / receipt.shard).read_bytes()
        assert hashlib.sha256(content).hexdigest() == receipt.sha256 == expected[receipt.shard]
    return len(receipts)


def wait_for(what: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it never came to be"
        time.sleep(0.002)


def wait_for_receipts(folder: Path, count: int) -> None:
    """Wait until a job has finished so many shards, or all of them."""
    wait_for(lambda: folder.exists() or len(list(folder.parent.glob("ds.partial/receipts/*.json"))) >= count)


# Kills


@pytest.mark.slow
def test_twenty_random_kills_of_the_driver(
    commands: Preloaded, tracks: Path, undisturbed_files: dict[str, str], tmp_path: Path
) -> None:
    chance, interrupted = random.Random(4), 0
    for number in range(20):
        folder, receipts = tmp_path / str(number) / "ds", chance.randrange(SHARDS)
        command = ["encode", tracks / "pairs.jsonl", "--out", folder, "--local", *OPTIONS]
        pid = commands.start(command, tmp_path / "log")
        wait_for_receipts(folder, receipts)
        time.sleep(chance.random() * 0.03)
        os.kill(pid, signal.SIGKILL)
        assert commands.wait(pid) in {-signal.SIGKILL, 0}
        if not folder.exists():
            interrupted += 1
            assert assert_what_is_there_is_sound(folder.with_name("ds.partial"), undisturbed_files) >= receipts
        assert commands.run([*command, "--json"], tmp_path / "log") == 0, (tmp_path / "log").read_text()
        assert_undisturbed(folder, undisturbed_files)
    assert interrupted >= 10, "the kills came too late to mean anything"


@pytest.mark.slow
def test_random_kills_of_actors_while_the_job_goes_on(
    ray_cluster: Any, tracks: Path, undisturbed_files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (alive := tmp_path / "alive").mkdir()

    class Known(ShardEncoder):
        """Leaves word of its process when it begins a shard, and takes its time over it."""

        def encode(self, plan: ShardPlan) -> Iterator[float | Receipt]:
            for event in super().encode(plan):
                (alive / str(os.getpid())).touch()
                time.sleep(0.3)
                yield event

    killed: list[int] = []
    monkeypatch.setattr(job, "ShardEncoder", Known)
    monkeypatch.setattr(job, "REPORT_SECONDS", 0.0)
    over = threading.Event()

    def kill() -> None:
        while len(killed) < 5 and not over.is_set():
            for path in alive.iterdir():
                path.unlink()
                if len(killed) < 5 and int(path.name) not in killed:
                    os.kill(int(path.name), signal.SIGKILL)
                    killed.append(int(path.name))
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    folder = tmp_path / "out" / "ds"
    config = TWO_A_SHARD.model_copy(update={"encoder": EncoderConfig(max_actors=2)})
    pairs = paired(tracks / "wav")
    try:
        for _ in range(5):  # a shard whose encoder is killed three times fails the job, which is then run again
            try:
                encode_dataset(pairs, folder, config, encode_with_ray)
                break
            except CascadenceError as error:
                assert "encoder died 3 times" in str(error)  # noqa: PT017
    finally:
        over.set()
        killer.join()
    assert len(killed) == 5
    assert_undisturbed(folder, undisturbed_files)


@pytest.mark.slow
def test_a_killed_driver_takes_its_ray_along_and_the_next_one_goes_on(
    tracks: Path, undisturbed_files: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "out" / "ds"
    command = [sys.executable, "-m", "pipeline", "encode", str(tracks / "pairs.jsonl"), "--out", str(folder), *OPTIONS]
    environment = {**os.environ, "PYTHONPATH": str(Path(job.__file__).parents[1])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as driver:
        wait_for(lambda: list(folder.parent.glob("ds.partial/receipts/*.json")), 120)
        driver.kill()
    assert not folder.exists()
    kept = assert_what_is_there_is_sound(folder.with_name("ds.partial"), undisturbed_files)
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["kept_shards"] >= kept
    assert_undisturbed(folder, undisturbed_files)


# Stops


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_lets_the_running_shard_finish(
    commands: Preloaded, many: Path, undisturbed_many: dict[str, str], tmp_path: Path, number: int, code: int
) -> None:
    folder, log = tmp_path / "out" / "ds", tmp_path / "log"
    staging = folder.with_name("ds.partial")
    command = ["encode", many, "--out", folder, "--local", *OPTIONS]
    pid = commands.start(command, log)
    wait_for(lambda: list(staging.glob("receipts/*.json")))
    os.kill(pid, number)
    assert commands.wait(pid) == code
    said = log.read_text()
    assert "stopping after the running shards; once more to stop at once" in said
    assert "the same command goes on with the rest" in said.splitlines()[-1]
    kept = assert_what_is_there_is_sound(staging, undisturbed_many)
    assert f"stopped; {kept} of {len(undisturbed_shards(undisturbed_many))} shards were finished" in said
    assert {path.suffix for path in staging.rglob("*") if path.is_file()} == {".json", ".tar"}
    assert commands.run([*command, "--json"], log) == 0
    assert json.loads(log.read_text().partition("{")[1] + log.read_text().partition("{")[2])["kept_shards"] == kept
    assert_undisturbed(folder, undisturbed_many)


def test_a_second_signal_stops_at_once(
    commands: Preloaded, many: Path, undisturbed_many: dict[str, str], tmp_path: Path
) -> None:
    folder, log = tmp_path / "out" / "ds", tmp_path / "log"
    command = ["encode", many, "--out", folder, "--local", *OPTIONS]
    one_shard = [*command, "--set", "output.samples_per_shard=100000"]
    pid = commands.start(one_shard, log)
    wait_for(lambda: list(folder.parent.glob("ds.partial/receipts/*.begun")))
    os.kill(pid, signal.SIGINT)
    wait_for(lambda: "once more" in log.read_text())
    os.kill(pid, signal.SIGINT)
    assert commands.wait(pid) == 130
    assert log.read_text().splitlines()[-1].startswith("stopped at once; the same command")
    assert not list(folder.parent.rglob("*.tar*"))
    assert commands.run(command, log) == 0
    assert_undisturbed(folder, undisturbed_many)


# A full disk


def fill(filler: Path) -> None:
    """Take what room is left on a disk."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def said_by(work: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Do something under the manners of the command line; gives the lines that it says of its failure."""
    with pytest.raises(SystemExit) as exited:
        console.run(lambda args, prog_name: work(), "python -m pipeline", [])  # type: ignore[arg-type]
    assert exited.value.code == 1
    return capsys.readouterr().err.splitlines()


def test_a_full_disk_is_one_line_and_the_job_goes_on_once_there_is_room(
    tracks: Path, undisturbed_files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (disk := tmp_path / "disk").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this user may not mount a small disk")
    try:
        folder, filler = disk / "out" / "ds", disk / "filler"

        class Filling(Observer):
            def finished(self, receipt: Receipt) -> None:
                fill(filler)

        def job() -> None:
            encode_dataset(paired(tracks / "wav"), folder, TWO_A_SHARD, encode_locally, Filling())

        assert said_by(job, capsys) == [
            f"error: {folder.with_name('ds.partial')}/train/ds-train-000001.tar: No space left on device; make room, "
            "and run the same command again"
        ]
        staging = folder.with_name("ds.partial")
        assert assert_what_is_there_is_sound(staging, undisturbed_files) == 1
        assert not list(staging.rglob("*.tmp.*")), "what did not fit was taken away again"
        filler.unlink()
        encode_dataset(paired(tracks / "wav"), folder, TWO_A_SHARD, encode_locally)
        assert_undisturbed(folder, undisturbed_files)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_dataset_that_can_not_fit_is_refused_before_any_work(
    tracks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (disk := tmp_path / "disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], check=False).returncode != 0:
        pytest.skip("this user may not mount a small disk")
    try:
        (line,) = said_by(
            lambda: encode_dataset(paired(tracks / "wav"), disk / "ds", TWO_A_SHARD, encode_locally), capsys
        )
        assert line.startswith(f"error: {disk / 'ds'}: 12 pairs take 0.000")
        assert "are free there; make room, choose another --out" in line
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# Rivals


def test_a_second_job_on_the_same_output_refuses(
    commands: Preloaded, many: Path, undisturbed_many: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "out" / "ds"
    command = ["encode", many, "--out", folder, "--local", *OPTIONS]
    first = commands.start(command, tmp_path / "first")
    wait_for(lambda: list(folder.parent.glob("ds.partial/receipts/*")))
    assert commands.run(command, tmp_path / "second") == 1
    (line,) = (tmp_path / "second").read_text().splitlines()
    assert line.startswith(f"error: {folder}: another encode job is at work here")
    assert "wait for it, or stop it, or choose another --out" in line
    os.kill(first, signal.SIGKILL)
    assert commands.wait(first) == -signal.SIGKILL
    assert not folder.exists(), "the first job was still at work"
    assert commands.run(command, tmp_path / "second") == 0, "a dead job holds nothing"
    assert_undisturbed(folder, undisturbed_many)


# Sources


def test_a_source_changed_since_it_was_paired_is_refused(tracks: Path, tmp_path: Path) -> None:
    root = copied(tracks, tmp_path)
    pairs = paired(root)
    changed = root / "train" / "pair_0003_target.wav"
    changed.write_bytes((root / "train" / "pair_0004_target.wav").read_bytes())
    outcome = encode_dataset(pairs, tmp_path / "ds", TWO_A_SHARD, encode_locally)
    (reject,) = outcome.rejected
    assert (reject.target, reject.side, reject.reason) == ("train/pair_0003_target.wav", "target", "changed")
    assert outcome.manifest is not None
    assert outcome.manifest.rejected == {"changed": 1}


DEADLY = b"DEADLY" * 4
READER = '''
"""The real soundfile, which dies on one file as a broken decoder might."""
import ctypes, importlib.machinery, importlib.util, os, pathlib, sys
elsewhere = [path for path in sys.path if path and pathlib.Path(path) != pathlib.Path(__file__).parent]
spec = importlib.machinery.PathFinder.find_spec("soundfile", elsewhere)
real = importlib.util.module_from_spec(spec)
sys.modules["soundfile"] = real
spec.loader.exec_module(real)
class SoundFile(real.SoundFile):
    def __init__(self, file, *arguments, **options):
        if isinstance(file, int) and {deadly!r} in os.pread(file, 1 << 30, 0):
            ctypes.string_at(0)
        super().__init__(file, *arguments, **options)
real.SoundFile = SoundFile
'''


@pytest.fixture
def deadly(tracks: Path, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Tracks of which one kills whoever decodes it, and the environment with such a decoder."""
    root = copied(tracks, tmp_path)
    victim = root / "train" / "pair_0005_input.wav"
    sound, rate = soundfile.read(victim, dtype="int16")
    sound[: len(DEADLY) // 2] = np.frombuffer(DEADLY, np.int16)
    soundfile.write(victim, sound, rate)
    write_pairs(tmp_path / "pairs.jsonl", paired(root))
    (tmp_path / "reader").mkdir()
    (tmp_path / "reader" / "soundfile.py").write_text(READER.format(deadly=DEADLY))
    paths = [str(tmp_path / "reader"), str(Path(job.__file__).parents[1])]
    return tmp_path, {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def assert_only_the_deadly_file_is_refused(folder: Path, undisturbed_files: dict[str, str]) -> None:
    (line,) = (folder / "rejects.jsonl").read_text().splitlines()
    reject = json.loads(line)
    assert (reject["input"], reject["side"], reject["reason"]) == ("train/pair_0005_input.wav", "input", "deadly")
    assert f"killed its reader {TRIES} times (SIGSEGV)" in reject["detail"]
    found = files(folder)
    assert found["train/ds-train-000002.tar"] != undisturbed_files["train/ds-train-000002.tar"]
    assert {name: found[name] for name in undisturbed_shards(undisturbed_files) if not name.endswith("2.tar")} == {
        name: undisturbed_files[name] for name in undisturbed_shards(undisturbed_files) if not name.endswith("2.tar")
    }
    assert open_dataset(folder).splits["train"].samples == PAIRS - 1
    assert verify(folder, "full").problems == ()


@pytest.mark.slow
def test_a_file_that_kills_its_reader_is_refused_by_the_next_run(
    deadly: tuple[Path, dict[str, str]], undisturbed_files: dict[str, str]
) -> None:
    folder, environment = deadly
    command = [sys.executable, "-m", "pipeline", "encode", str(folder / "pairs.jsonl"), "--out", str(folder / "ds")]
    command += [*OPTIONS, "--local"]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGSEGV
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert_only_the_deadly_file_is_refused(folder / "ds", undisturbed_files)


@pytest.mark.slow
def test_a_job_on_ray_outlives_a_file_that_kills_its_reader(
    deadly: tuple[Path, dict[str, str]], undisturbed_files: dict[str, str]
) -> None:
    folder, environment = deadly
    command = [sys.executable, "-m", "pipeline", "encode", str(folder / "pairs.jsonl"), "--out", str(folder / "ds")]
    assert subprocess.run([*command, *OPTIONS], env=environment, check=False).returncode == 0
    assert_only_the_deadly_file_is_refused(folder / "ds", undisturbed_files)


def copied(tracks: Path, tmp_path: Path) -> Path:
    """Copy the recordings for a test that spoils some; gives their folder."""
    return Path(shutil.copytree(tracks / "wav", tmp_path / "wav"))

"""Encoding: the same shards however they are made, after whatever went wrong, and every refusal accounted for."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from pipeline import job
from pipeline.cli.app import app
from pipeline.config import CodecConfig, EncodeConfig, EncoderConfig, OutputConfig
from pipeline.destination import Destination, open_destination
from pipeline.encode import Advance, Outcome, Runner, encode_dataset, encode_locally
from pipeline.job import ShardEncoder, encode_with_ray
from pipeline.observer import Observer
from pipeline.pairing import Pairs, make_pairs, write_pairs
from pipeline.plan import ShardPlan
from pipeline.stopping import Stop
from pipeline.synthesize import SAMPLE_RATE, synthesize_pair
from shards import console
from shards.audio import decode_flac, read, write_wav
from shards.audit import verify
from shards.codec.mdct import MdctCodec
from shards.codec.weights import WEIGHTS_FILE, WEIGHTS_SHA256
from shards.dataset import open_dataset
from shards.errors import CascadenceError, CodecError, MisuseError
from shards.schema import Receipt, SampleRecord
from shards.wire import decode_array

SECONDS = 2.0
PAIRS = 6
TWO_A_SHARD = EncodeConfig(codec=CodecConfig(name="mdct"), output=OutputConfig(samples_per_shard=2))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def wavs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six synthesized pairs in train/ and val/, at the codec's rate and not."""
    root = tmp_path_factory.mktemp("wavs")
    for index in range(PAIRS):
        pair = synthesize_pair(1, index, SECONDS)
        split = "val" if index == PAIRS - 1 else "train"
        for side, samples in (("input", pair.drums), ("target", pair.piano)):
            write_wav(root / split / f"pair_{index:04d}_{side}.wav", samples, SAMPLE_RATE)
    fifth, rate = soundfile.read(root / "train" / "pair_0004_target.wav")
    soundfile.write(root / "train" / "pair_0004_target.wav", np.repeat(fifth, 2), 2 * rate)
    return root


@pytest.fixture
def own_wavs(wavs: Path, tmp_path: Path) -> Path:
    """A copy of `wavs` that a test may spoil."""
    for path in wavs.rglob("*.wav"):
        target = tmp_path / "wavs" / path.relative_to(wavs)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path / "wavs"


@pytest.fixture(scope="session")
def undisturbed(wavs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset as one process makes it when nothing goes wrong: shards of two pairs, three train and one val."""
    folder = tmp_path_factory.mktemp("undisturbed") / "ds"
    encode(paired(wavs), folder)
    return folder


def paired(root: Path) -> Pairs:
    return make_pairs(root, "suffix", SECONDS, seed=0, val_fraction=0.1)[0]


def unhashed(root: Path) -> Pairs:
    """Pairs as a person writes them, without the sources' hashes: their files may change."""
    return paired(root).model_copy(update={"files": ()})


def encode(pairs: Pairs, folder: Path, config: EncodeConfig = TWO_A_SHARD, runner: Runner = encode_locally) -> Outcome:
    return encode_dataset(pairs, folder, config, runner)


def files(folder: Path) -> dict[str, str]:
    """Every file of a dataset and its hash, but for what the build says of itself."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "dataset.json"
    }


def assert_same_dataset(one: Path, other: Path) -> None:
    assert files(one) == files(other)
    assert open_dataset(one).manifest.fingerprint == open_dataset(other).manifest.fingerprint
    assert verify(one, "sha256").problems == ()


def cli(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exited:
        console.run(app, "python -m pipeline", [str(argument) for argument in arguments])
    return int(exited.value.code or 0)


def records(folder: Path) -> list[tuple[SampleRecord, dict[str, np.ndarray[Any, Any]]]]:
    """Every sample of a dataset, with its latents."""
    dataset, found = open_dataset(folder), []
    for split, entry in dataset.splits.items():
        shards = [(folder / shard.file).read_bytes() for shard in entry.shards]
        for row in dataset.index(split):
            content = shards[int(row["shard"])]
            part = {
                name: content[int(row[f"{name}_offset"]) :][: int(row[f"{name}_bytes"])]
                for name in ("input", "json", "target")
            }
            record = SampleRecord.model_validate_json(part.pop("json"))
            found.append((record, {name: decode_array(payload) for name, payload in part.items()}))
    return found


# What is in a dataset


def test_a_dataset_opens_and_verifies(undisturbed: Path) -> None:
    audit = verify(undisturbed, "sha256")
    assert (audit.problems, audit.samples, audit.shards) == ((), PAIRS, 4)
    dataset = open_dataset(undisturbed)
    assert {split: [s.samples for s in e.shards] for split, e in dataset.splits.items()} == {
        "train": [2, 2, 1],
        "val": [1],
    }
    assert dataset.frames == SECONDS * 75
    assert {path.name for path in undisturbed.parent.iterdir()} == {"ds"}


def test_the_latents_are_those_of_the_source(undisturbed: Path, wavs: Path) -> None:
    codec, seen = MdctCodec(), set()
    for record, latents in records(undisturbed):
        for name, side in (("input", record.input), ("target", record.target)):
            path = wavs / side.path
            audio = read(path).mono(SAMPLE_RATE)
            seen.add(path)
            assert f"_{name}." in side.path
            assert side.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            assert side.rms == pytest.approx(float(np.sqrt(np.mean(np.square(audio)))), rel=1e-4)
            assert side.peak == pytest.approx(float(np.abs(audio).max()), rel=1e-4)
            assert max(side.envelope) == side.peak
            assert side.cast_snr_db > 60
            expected = codec.encode(torch.from_numpy(audio)[None, None])[0].numpy()
            assert latents[name].dtype == np.float16
            np.testing.assert_array_equal(latents[name], expected.astype(np.float16))
            heard = codec.decode(torch.tensor(latents[name])[None])[0, 0, : len(audio) - 320].numpy()
            # The codec keeps what lies below 4.8 kHz: compare that.
            spectra = [np.abs(np.fft.rfft(x[: len(heard)]))[: int(3_500 * SECONDS)] for x in (heard, audio)]
            assert np.linalg.norm(spectra[0] - spectra[1]) < 0.1 * np.linalg.norm(spectra[1])
    assert seen == set(wavs.rglob("*.wav"))


def test_a_window_of_a_long_file_is_encoded_from_its_own_place(wavs: Path, tmp_path: Path) -> None:
    pairs, _ = make_pairs(wavs, "continuation", 0.5, seed=0, val_fraction=0)
    encode(pairs, tmp_path / "ds", EncodeConfig(codec=CodecConfig(name="mdct")))
    codec, found = MdctCodec(), records(tmp_path / "ds")
    assert len(found) == len(pairs.pairs) == 3 * 2 * PAIRS
    for record, latents in found:
        assert record.target.path == record.input.path
        assert record.target.start == record.input.start + SAMPLE_RATE // 2
        audio = read(wavs / record.target.path).mono(SAMPLE_RATE)[record.target.start :][: SAMPLE_RATE // 2]
        expected = codec.encode(torch.from_numpy(audio)[None, None])[0].numpy()
        np.testing.assert_array_equal(latents["target"], expected.astype(np.float16))


def test_float32_latents_are_kept_exactly(wavs: Path, tmp_path: Path) -> None:
    config = EncodeConfig(codec=CodecConfig(name="mdct"), output=OutputConfig(latents="float32"))
    encode(paired(wavs), tmp_path / "ds", config)
    record, latents = records(tmp_path / "ds")[0]
    audio = torch.from_numpy(read(wavs / record.input.path).mono(SAMPLE_RATE))
    np.testing.assert_array_equal(latents["input"], MdctCodec().encode(audio[None, None])[0].numpy())


def test_neither_place_nor_name_nor_order_changes_the_fingerprint(
    undisturbed: Path, own_wavs: Path, tmp_path: Path
) -> None:
    pairs = paired(own_wavs)
    backwards = pairs.model_copy(update={"pairs": pairs.pairs[::-1]})
    encode(pairs, tmp_path / "other name")
    encode(backwards, tmp_path / "ds")
    fingerprint = open_dataset(undisturbed).manifest.fingerprint
    assert open_dataset(tmp_path / "other name").manifest.fingerprint == fingerprint
    assert files(tmp_path / "ds") == files(undisturbed)


@pytest.mark.parametrize(("choice", "sides"), [("target", ("target",)), ("both", ("input", "target"))])
def test_the_windows_are_there_as_flac_where_asked_for(
    undisturbed: Path, wavs: Path, tmp_path: Path, choice: str, sides: tuple[str, ...]
) -> None:
    write_pairs(tmp_path / "pairs.jsonl", paired(wavs))
    arguments = ["encode", tmp_path / "pairs.jsonl", "--codec", "mdct", "--local", "--audio", choice]
    arguments += ["--set", "output.samples_per_shard=2"]
    for name in ("ds", "again/ds"):
        assert cli(*arguments, "--out", tmp_path / name) == 0
    assert_same_dataset(tmp_path / "ds", tmp_path / "again" / "ds")
    assert verify(tmp_path / "ds", "full").problems == ()
    dataset, bare = open_dataset(tmp_path / "ds"), open_dataset(undisturbed)
    assert dataset.manifest.audio == sides
    assert dataset.manifest.fingerprint != bare.manifest.fingerprint
    for number in range(PAIRS):
        sample, same = dataset.read(dataset.locate(str(number))), bare.read(bare.locate(str(number)))
        assert sample.record == same.record
        assert set(sample.audio) == set(sides)
        for side in sides:
            source = getattr(sample.record, side)
            heard = decode_flac(sample.audio[side], SAMPLE_RATE)
            audio = read(wavs / source.path).mono(SAMPLE_RATE)
            assert len(heard) == SECONDS * SAMPLE_RATE
            assert np.abs(heard - audio).max() <= 0.5 / 32_768


def test_a_window_of_a_long_file_is_exactly_the_flac(wavs: Path, tmp_path: Path) -> None:
    pairs, _ = make_pairs(wavs, "continuation", 0.5, seed=0, val_fraction=0)
    config = EncodeConfig(codec=CodecConfig(name="mdct"), output=OutputConfig(audio="both"))
    encode(pairs.model_copy(update={"pairs": pairs.pairs[:3]}), tmp_path / "ds", config)
    dataset = open_dataset(tmp_path / "ds")
    for number in range(3):
        sample = dataset.read(dataset.locate(str(number)))
        for side in ("input", "target"):
            source = getattr(sample.record, side)
            audio = read(wavs / source.path).mono(SAMPLE_RATE)[source.start :][: SAMPLE_RATE // 2]
            heard = decode_flac(sample.audio[side], SAMPLE_RATE)
            assert heard.shape == audio.shape
            assert np.abs(heard - audio).max() <= 0.5 / 32_768


# Ray


@pytest.mark.slow
@pytest.mark.parametrize("max_actors", [2, 1])
def test_ray_makes_the_same_dataset_as_one_process(
    ray_cluster: Any, undisturbed: Path, wavs: Path, tmp_path: Path, max_actors: int
) -> None:
    config = TWO_A_SHARD.model_copy(update={"encoder": EncoderConfig(max_actors=max_actors)})
    outcome = encode(paired(wavs), tmp_path / "ds", config, encode_with_ray)
    assert (outcome.encoded_shards, outcome.kept_shards) == (4, 0)
    assert_same_dataset(tmp_path / "ds", undisturbed)


@pytest.mark.slow
def test_ray_workers_import_the_code_under_test(ray_cluster: Any) -> None:
    def where() -> str:
        import pipeline

        return str(pipeline.__file__)

    assert ray_cluster.get(ray_cluster.remote(where).remote()) == str(Path(job.__file__).with_name("__init__.py"))


@pytest.mark.slow
def test_ray_encodes_from_another_directory_than_its_own(
    ray_cluster: Any, undisturbed: Path, wavs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pairs(Path("pairs.jsonl"), paired(wavs))
    assert cli("encode", "pairs.jsonl", "--out", "ds", "--codec", "mdct", "--set", "encoder.max_actors=1") == 0
    assert {record.key for record, _ in records(tmp_path / "ds")} == {r.key for r, _ in records(undisturbed)}
    assert {path.name for path in tmp_path.iterdir()} == {"ds", "pairs.jsonl"}


def deadly_encoder(flags: Path, file: str, deaths: int) -> type[ShardEncoder]:
    """An encoder whose process is killed `deaths` times in the middle of one shard, and leaves half a file."""
    host = socket.gethostname()

    class Deadly(ShardEncoder):
        def encode(self, plan: ShardPlan) -> Iterator[float | Receipt]:
            for event in super().encode(plan):
                if plan.file == file and len(list(flags.iterdir())) < deaths:
                    (flags / str(os.getpid())).touch()
                    shard = Path(self._destination.place(plan.file))
                    shard.with_name(f"{shard.name}.tmp.{host}.{os.getpid()}").write_bytes(b"half a shard")
                    shard.unlink(missing_ok=True)
                    Path(self._destination.place(plan.receipt)).unlink(missing_ok=True)
                    os.kill(os.getpid(), signal.SIGKILL)
                yield event

    return Deadly


@pytest.mark.slow
def test_a_shard_whose_encoder_was_killed_is_made_by_another(
    ray_cluster: Any, undisturbed: Path, wavs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (flags := tmp_path / "flags").mkdir()
    monkeypatch.setattr(job, "ShardEncoder", deadly_encoder(flags, "train/ds-train-000001.tar", deaths=1))
    config = TWO_A_SHARD.model_copy(update={"encoder": EncoderConfig(max_actors=1)})
    encode(paired(wavs), tmp_path / "ds", config, encode_with_ray)
    assert len(list(flags.iterdir())) == 1
    assert_same_dataset(tmp_path / "ds", undisturbed)


@pytest.mark.slow
def test_a_shard_that_kills_every_encoder_is_one_line_and_the_others_are_kept(
    ray_cluster: Any, wavs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (flags := tmp_path / "flags").mkdir()
    write_pairs(tmp_path / "pairs.jsonl", paired(wavs))
    out = tmp_path / "ds"
    arguments = ["encode", tmp_path / "pairs.jsonl", "--out", out, "--codec", "mdct"]
    arguments += ["--set", "output.samples_per_shard=2", "--set", "encoder.max_actors=1"]
    with monkeypatch.context() as patch:
        patch.setattr(job, "ShardEncoder", deadly_encoder(flags, "val/ds-val-000000.tar", deaths=99))
        assert cli(*arguments) == 1
    assert len(list(flags.iterdir())) == job.ATTEMPTS
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    for part in ("val/ds-val-000000.tar", "3 times", "val/pair_0005_input.wav", "too little memory"):
        assert part in error[0]
    assert not out.exists()
    assert not list(tmp_path.glob("ds.partial/val/*.tar"))

    assert cli(*arguments, "--local", "--json") == 0
    assert json.loads(capsys.readouterr().out)["kept_shards"] == 3
    assert verify(out, "sha256").problems == ()


@pytest.mark.slow
def test_an_encoder_that_fails_says_why_in_one_line(
    ray_cluster: Any, wavs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path / "pairs.jsonl", paired(wavs))
    (tmp_path / "ds.partial").mkdir()
    (tmp_path / "ds.partial" / "val").touch()
    arguments = ["encode", tmp_path / "pairs.jsonl", "--out", tmp_path / "ds", "--codec", "mdct"]
    assert cli(*arguments, "--set", "encoder.max_actors=1") == 1
    error = capsys.readouterr().err
    assert error == f"error: {tmp_path / 'ds.partial' / 'val'}: File exists\n"


@pytest.mark.slow
def test_weights_that_only_the_workers_lack_are_named(ray_cluster: Any, wavs: Path, tmp_path: Path) -> None:
    seen: list[ShardPlan] = []

    def planned(
        plans: Sequence[ShardPlan], config: EncodeConfig, destination: Destination, stop: Stop
    ) -> Iterator[Advance | Receipt]:
        seen.extend(plans)
        return encode_locally(plans, config, destination, stop)

    encode(paired(wavs), tmp_path / "ds", runner=planned)
    config = EncodeConfig(codec=CodecConfig(name="encodec", weights="absent.th"))
    with pytest.raises(CodecError, match=r"absent\.th") as caught:
        list(encode_with_ray(seen[:1], config, open_destination(tmp_path / "other"), Stop()))
    assert "\n" not in str(caught.value)


# Resuming


class Counting:
    """The runner of one process, that counts the shards that it makes and may stop before one."""

    def __init__(self, stop_before: int | None = None) -> None:
        self.made: list[str] = []
        self.stop_before = stop_before

    def __call__(
        self, plans: Sequence[ShardPlan], config: EncodeConfig, destination: Destination, stop: Stop
    ) -> Iterator[Advance | Receipt]:
        for number, plan in enumerate(plans):
            if number == self.stop_before:
                raise KeyboardInterrupt
            self.made.append(plan.file)
            yield from encode_locally([plan], config, destination, stop)


def stopped(pairs: Pairs, folder: Path, after: int, config: EncodeConfig = TWO_A_SHARD) -> None:
    """Leave `folder` as a run leaves it that was stopped after some shards."""
    with pytest.raises(KeyboardInterrupt):
        encode(pairs, folder, config, Counting(stop_before=after))
    assert not folder.exists()
    assert folder.with_name(f"{folder.name}.partial").is_dir()


def test_a_stopped_job_goes_on_where_it_was(undisturbed: Path, wavs: Path, tmp_path: Path) -> None:
    pairs, folder, second = paired(wavs), tmp_path / "ds", Counting()
    stopped(pairs, folder, after=3)
    with pytest.raises(CascadenceError, match=r"not finished; run the same .* again"):
        open_dataset(folder)

    class Listening(Observer):
        def __init__(self) -> None:
            self.heard: list[tuple[str, str]] = []

        def kept(self, receipt: Receipt) -> None:
            self.heard.append((receipt.shard, "kept"))

        def finished(self, receipt: Receipt) -> None:
            self.heard.append((receipt.shard, "made"))

    listening = Listening()
    outcome = encode_dataset(pairs, folder, TWO_A_SHARD, second, listening)

    assert second.made == ["val/ds-val-000000.tar"]
    assert (outcome.encoded_shards, outcome.kept_shards) == (1, 3)
    shards = sorted(f for f in files(folder) if f.endswith(".tar"))
    assert sorted(listening.heard) == [*((shard, "kept") for shard in shards[:3]), (shards[3], "made")]
    assert_same_dataset(folder, undisturbed)
    assert {path.name for path in tmp_path.iterdir()} == {"ds"}


@pytest.mark.parametrize("spoiled", ["receipt", "receipt and shard", "half a receipt", "shard", "half a shard"])
def test_only_what_is_not_there_whole_is_made_again(
    undisturbed: Path, wavs: Path, tmp_path: Path, spoiled: str
) -> None:
    pairs, folder, second = paired(wavs), tmp_path / "ds", Counting()
    stopped(pairs, folder, after=3)
    shard = tmp_path / "ds.partial" / "train" / "ds-train-000001.tar"
    receipt = tmp_path / "ds.partial" / "receipts" / "ds-train-000001.tar.json"
    for path in (receipt, shard):
        if spoiled.startswith("half a") and path.name.endswith(".json") == spoiled.endswith("receipt"):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif not spoiled.startswith("half a") and ("receipt" if path is receipt else "shard") in spoiled:
            path.unlink()
    encode(pairs, folder, runner=second)
    assert second.made == ["train/ds-train-000001.tar", "val/ds-val-000000.tar"]
    assert_same_dataset(folder, undisturbed)


def test_what_a_killed_writer_left_is_not_published(undisturbed: Path, wavs: Path, tmp_path: Path) -> None:
    pairs, folder = paired(wavs), tmp_path / "ds"
    stopped(pairs, folder, after=1)
    names = ("train/ds-train-000001.tar.tmp.host.1", "receipts/ds-train-000001.tar.json.tmp.host.1")
    for name in (*names, "index/train.npy.tmp.host.1", "index/test.npy", "dataset.json.tmp.host.1"):
        (tmp_path / "ds.partial" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "ds.partial" / name).write_bytes(b"half")
    encode(pairs, folder)
    assert_same_dataset(folder, undisturbed)


def test_a_stopped_job_may_go_on_with_other_settings(undisturbed: Path, wavs: Path, tmp_path: Path) -> None:
    pairs, folder = paired(wavs), tmp_path / "ds"
    one_a_shard = EncodeConfig(codec=CodecConfig(name="mdct"), output=OutputConfig(samples_per_shard=1))
    stopped(pairs, folder, after=5, config=one_a_shard)
    encode(pairs, folder)
    assert_same_dataset(folder, undisturbed)


def test_a_finished_dataset_is_left_alone(undisturbed: Path, wavs: Path) -> None:
    before, runner = files(undisturbed), Counting()
    outcome = encode(paired(wavs), undisturbed, runner=runner)
    assert (runner.made, outcome.encoded_shards, outcome.kept_shards) == ([], 0, 4)
    assert files(undisturbed) == before


@pytest.mark.parametrize(
    "option",
    ["output.samples_per_shard=3", "output.latents=float32", "output.audio=target", "screening.silence_rms=0.01"],
)
def test_a_finished_dataset_is_not_overwritten(
    undisturbed: Path, wavs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    before = files(undisturbed)
    write_pairs(tmp_path / "pairs.jsonl", paired(wavs))
    base = ["encode", tmp_path / "pairs.jsonl", "--out", undisturbed, "--codec", "mdct", "--local"]
    base += ["--set", "output.samples_per_shard=2"]
    assert cli(*base, "--set", option) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {undisturbed}: holds a dataset made from other pairs or settings")
    assert "choose another --out" in error
    assert error.count("\n") == 1
    assert files(undisturbed) == before
    assert cli(*base, "--json") == 0
    assert json.loads(capsys.readouterr().out)["kept_shards"] == 4


def test_a_folder_that_is_no_dataset_is_not_touched(wavs: Path, tmp_path: Path) -> None:
    (tmp_path / "ds").mkdir()
    (tmp_path / "ds" / "thesis.tex").write_text("precious")
    with pytest.raises(MisuseError, match="exists and is no dataset"):
        encode(paired(wavs), tmp_path / "ds")
    assert [path.name for path in tmp_path.rglob("*")] == ["ds", "thesis.tex"]


# Refused pairs


def spoil(root: Path, *numbers: int) -> None:
    """Make the targets of some pairs unusable: silent, clipped, cut short, and no audio, in turn."""
    for number, kind in zip(numbers, ("silent", "clipped", "truncated", "unreadable"), strict=False):
        path = next(root.rglob(f"pair_{number:04d}_target.wav"))
        length = round(SECONDS * SAMPLE_RATE)
        if kind == "truncated":
            path.write_bytes(path.read_bytes()[:-1_000])
        elif kind == "unreadable":
            path.write_bytes(b"hello" * 99)
        else:
            soundfile.write(path, np.full(length, 0.0 if kind == "silent" else 1.0), SAMPLE_RATE)


def test_a_refused_pair_is_accounted_for_and_the_others_are_there(
    undisturbed: Path, own_wavs: Path, tmp_path: Path
) -> None:
    pairs, folder = unhashed(own_wavs), tmp_path / "ds"
    spoil(own_wavs, 1, 2, 3, 4)
    encode(pairs, folder, TWO_A_SHARD.model_copy(update={"max_reject_fraction": 0.7}))

    dataset = open_dataset(folder)
    assert dataset.manifest.rejected == {"silent": 1, "clipped": 1, "truncated": 1, "unreadable": 1}
    listed = [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]
    assert [(r["target"], r["side"], r["reason"]) for r in listed] == [
        (f"train/pair_000{n}_target.wav", "target", reason)
        for n, reason in ((1, "silent"), (2, "clipped"), (3, "truncated"), (4, "unreadable"))
    ]
    assert all(r["detail"].startswith(f"{r['target']}: ") for r in listed)
    receipts = [Receipt.model_validate_json(path.read_bytes()) for path in sorted((folder / "receipts").glob("*.json"))]
    assert [(r.samples, [reject.reason for reject in r.rejected]) for r in receipts] == [
        (1, ["silent"]),
        (0, ["clipped", "truncated"]),
        (0, ["unreadable"]),
        (1, []),
    ]
    whole = {record.key: latents for record, latents in records(undisturbed)}
    left = records(folder)
    assert [record.input.path for record, _ in left] == ["train/pair_0000_input.wav", "val/pair_0005_input.wav"]
    assert all(np.array_equal(latents["input"], whole[record.key]["input"]) for record, latents in left)
    assert verify(folder, "sha256").problems == ()


def test_a_file_gone_since_pairing_is_a_refused_pair(own_wavs: Path, tmp_path: Path) -> None:
    pairs = paired(own_wavs)
    next(own_wavs.rglob("pair_0001_input.wav")).unlink()
    outcome = encode(pairs, tmp_path / "ds", TWO_A_SHARD.model_copy(update={"max_reject_fraction": 0.2}))
    assert outcome.manifest.rejected == {"missing": 1}


def test_an_edited_window_past_the_end_is_a_refused_pair(wavs: Path, tmp_path: Path) -> None:
    pairs = paired(wavs)
    first = pairs.pairs[0]
    late = first._replace(input=first.input._replace(start=100))
    pairs = pairs.model_copy(update={"pairs": (late, *pairs.pairs[1:])})
    outcome = encode(pairs, tmp_path / "ds", TWO_A_SHARD.model_copy(update={"max_reject_fraction": 0.2}))
    assert outcome.manifest.rejected == {"too_short": 1}


@pytest.mark.parametrize(
    ("spoiled", "limit", "code"), [((1,), 0.1, 1), ((1,), 0.17, 0), ((1, 2, 3), 0.5, 0), ((1, 2, 3, 4), 0.5, 1)]
)
def test_past_the_limit_the_job_fails_in_one_line(
    own_wavs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoiled: tuple[int, ...],
    limit: float,
    code: int,
) -> None:
    write_pairs(tmp_path / "pairs.jsonl", unhashed(own_wavs))
    spoil(own_wavs, *spoiled)
    out = tmp_path / "ds"
    arguments = ["encode", tmp_path / "pairs.jsonl", "--out", out, "--codec", "mdct", "--local"]
    assert cli(*arguments, "--max-reject-fraction", limit) == code
    assert out.exists() == (code == 0)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    if code == 0:
        assert errors == []
        return
    assert len(errors) == 1
    listed = tmp_path / "ds.partial" / "rejects.jsonl"
    for part in (f"{len(spoiled)} of 6 pairs were refused", "1 silent", "pair_0001_target.wav", str(listed)):
        assert part in errors[0]
    assert "--max-reject-fraction" in errors[0]
    assert Counter(json.loads(line)["reason"] for line in listed.read_text().splitlines())["silent"] == 1


def test_nothing_but_refused_pairs_is_a_failure_whatever_the_limit(own_wavs: Path, tmp_path: Path) -> None:
    pairs = unhashed(own_wavs)
    for path in own_wavs.rglob("*_target.wav"):
        path.write_bytes(b"hello" * 99)
    with pytest.raises(CascadenceError, match=r"6 of 6 pairs were refused \(6 unreadable"):
        encode(pairs, tmp_path / "ds", TWO_A_SHARD.model_copy(update={"max_reject_fraction": 1.0}))
    assert not (tmp_path / "ds").exists()


def test_a_refused_file_that_was_mended_is_tried_again(undisturbed: Path, own_wavs: Path, tmp_path: Path) -> None:
    pairs, folder, second = paired(own_wavs), tmp_path / "ds", Counting()
    broken = own_wavs / "train" / "pair_0002_target.wav"
    sound = broken.rename(tmp_path / "sound.wav")
    broken.write_bytes(sound.read_bytes()[:-1_000])
    with pytest.raises(CascadenceError, match="1 of 6 pairs were refused"):
        encode(pairs, folder)

    # Not touched, and still refused: nothing is encoded for it once more.
    with pytest.raises(CascadenceError, match="1 of 6 pairs were refused"):
        encode(pairs, folder, runner=second)
    assert second.made == []

    sound.rename(broken)
    encode(pairs, folder, runner=second)
    assert second.made == ["train/ds-train-000001.tar"]
    assert_same_dataset(folder, undisturbed)


# Codecs


def test_an_unknown_codec_is_misuse(wavs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "pairs.jsonl", paired(wavs))
    arguments = ["encode", tmp_path / "pairs.jsonl", "--out", tmp_path / "ds", "--local"]
    assert cli(*arguments, "--codec", "mp3") == 2
    assert cli(*arguments, "--set", "codec.name=mp3") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "error: configuration: codec.name: Input should be 'encodec' or 'mdct' (given: 'mp3')"
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.jsonl"}


def test_missing_weights_are_one_line_before_any_worker_starts(
    no_published_weights: Path,
    wavs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def connect() -> None:
        raise AssertionError("a worker was started")

    write_pairs(tmp_path / "pairs.jsonl", paired(wavs))
    monkeypatch.setattr(job, "connect_ray", connect)
    assert cli("encode", tmp_path / "pairs.jsonl", "--out", tmp_path / "ds") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    for part in (WEIGHTS_FILE, WEIGHTS_SHA256, "--codec-weights"):
        assert part in error
    assert not list(tmp_path.glob("ds*"))


def test_codes_of_a_codec_without_a_quantizer_are_refused_before_any_work(
    wavs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def connect() -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(job, "connect_ray", connect)
    write_pairs(tmp_path / "pairs.jsonl", paired(wavs))
    arguments = ["encode", tmp_path / "pairs.jsonl", "--out", tmp_path / "ds", "--codec", "mdct", "--latents", "codes"]
    assert cli(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: mdct: this codec has no quantizer")
    assert error.count("\n") == 1
    assert "--latents float16" in error
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.jsonl"}

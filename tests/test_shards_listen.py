"""`export`, `listen`, `plot`: files that hold exactly what the dataset does."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
import torch
from command import assert_one_line, run_shards
from make_data import flip_byte, make_dataset, make_header, make_receipt, make_sample

from shards.audio import Samples, read
from shards.cli.listen import parse_formats
from shards.codec import load_codec
from shards.dataset import Dataset, open_dataset
from shards.manifest import partial_folder
from shards.plots import plot_sample
from shards.publish import publish
from shards.schema import SIDES, CodecSpec, SampleRecord
from shards.writer import Sample

LOUD = 40.0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Sample 0 as it is, sample 1 so loud on its input that the audio exceeds full scale, sample 2 silent."""
    folder = tmp_path_factory.mktemp("listen") / "tiny-v1"
    plain, loud, silent = (make_sample(number) for number in range(3))
    samples = [
        plain,
        Sample(loud.record, loud.input * np.float16(LOUD), loud.target),
        Sample(silent.record, np.zeros_like(silent.input), np.zeros_like(silent.target)),
    ]
    receipt = make_receipt(partial_folder(folder), "train/tiny-v1-train-000000.tar", samples)
    publish(folder, make_header("tiny-v1"), [receipt])
    return open_dataset(folder)


def sample(dataset: Dataset, number: int = 0) -> Sample:
    return dataset.read(dataset.location("train", number))


def decoded(dataset: Dataset, number: int, side: str) -> Samples:
    latents = torch.from_numpy(getattr(sample(dataset, number), side).astype(np.float32))
    audio: Samples = load_codec("mdct").decode(latents[None])[0, 0].numpy()
    return audio


# export


def test_exported_arrays_and_records_are_the_stored_ones(dataset: Dataset, tmp_path: Path) -> None:
    key = sample(dataset).record.key
    outcome = run_shards("export", dataset.path, key, "--to", "npy,json", "--out", tmp_path / "new" / "folder")
    assert (outcome.code, outcome.err) == (0, "")
    folder = tmp_path / "new" / "folder"
    assert sorted(p.name for p in folder.iterdir()) == [f"{key}.input.npy", f"{key}.json", f"{key}.target.npy"]
    assert sorted(outcome.out.splitlines()) == sorted(str(path) for path in folder.iterdir())
    place = dataset.location("train", 0)
    for side in SIDES:
        stored = getattr(sample(dataset), side)
        array = np.load(folder / f"{key}.{side}.npy", allow_pickle=False)
        assert array.dtype == stored.dtype
        np.testing.assert_array_equal(array, stored)
        assert (folder / f"{key}.{side}.npy").read_bytes() == dataset.payload(place, side)
    assert (folder / f"{key}.json").read_bytes() == dataset.payload(place, "json")
    assert SampleRecord.parse((folder / f"{key}.json").read_bytes()) == sample(dataset).record


def test_exported_wav_is_what_the_codec_decodes(dataset: Dataset, tmp_path: Path) -> None:
    assert run_shards("export", dataset.path, "0", "1", "2", "--to", "wav", "--out", tmp_path).code == 0
    for number in range(3):
        for side in SIDES:
            recording = read(tmp_path / f"{sample(dataset, number).record.key}.{side}.wav")
            assert recording.source == (24_000, 1, 40 * 320)
            np.testing.assert_array_equal(recording.channels[:, 0], decoded(dataset, number, side))
    assert np.abs(decoded(dataset, 1, "input")).max() > 1, "and nothing of it was clipped"


def test_exported_flac_is_the_audio_to_16_bits_and_never_clips(dataset: Dataset, tmp_path: Path) -> None:
    assert run_shards("export", dataset.path, "0", "1", "--to", "flac", "--out", tmp_path).code == 0
    for number in range(2):
        audio = decoded(dataset, number, "input")
        path = tmp_path / f"{sample(dataset, number).record.key}.input.flac"
        assert soundfile.info(str(path)).format == "FLAC"
        expected = audio / max(1.0, float(np.abs(audio).max()))
        np.testing.assert_allclose(read(path).channels[:, 0], expected, atol=2 / 2**15)


def test_export_says_what_it_wrote_and_writes_the_same_bytes_again(dataset: Dataset, tmp_path: Path) -> None:
    command = [
        "export",
        dataset.path,
        "0",
        "train:0",
        sample(dataset).record.key,
        "--to",
        "json,flac,wav,npy",
        "--json",
    ]
    content = run_shards(*command, "--out", tmp_path / "1").json
    (files,) = content["samples"].values()
    assert sorted(files) == sorted(str(path) for path in (tmp_path / "1").iterdir())
    assert len(files) == 7
    run_shards(*command, "--out", tmp_path / "2")
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()


def test_a_float_wav_does_not_tell_the_time(
    dataset: Dataset, tmp_path: Path
) -> None:  # libsndfile notes it, in seconds since 1970, behind the peak
    run_shards("export", dataset.path, "0", "--to", "wav", "--out", tmp_path)
    content = next(tmp_path.glob("*.input.wav")).read_bytes()
    place = content.index(b"PEAK")
    assert content[place + 12 : place + 16] == bytes(4)


def test_export_refuses_what_it_cannot_do(dataset: Dataset, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "x"]
    refused = run_shards("export", dataset.path, "0", "--to", "npy,mp3", *out)
    assert_one_line(refused, 2, "there is no format 'mp3'; choose of: npy, wav, flac, json")
    assert_one_line(run_shards("export", dataset.path, "zz", *out), 2, "no sample named 'zz'")
    assert_one_line(run_shards("export", dataset.path, "0", "zz", *out), 2, "no sample named 'zz'")
    (tmp_path / "file").touch()
    assert_one_line(run_shards("export", dataset.path, "0", "--out", tmp_path / "file"), 2, "is a file; name a folder")
    assert not (tmp_path / "x").exists()
    assert parse_formats("wav, json,wav") == ("wav", "json")


def test_a_damaged_sample_is_named(dataset: Dataset, tmp_path: Path) -> None:
    copy = open_dataset(shutil.copytree(dataset.path, tmp_path / "copy"))
    flip_byte(copy.path / "train/tiny-v1-train-000000.tar", int(copy.index("train")[0]["input_offset"]) + 500)
    for command in (["export", "--out", tmp_path / "x"], ["listen", "--out", tmp_path / "x"],
                    ["plot", "--out", tmp_path / "x.png"]):  # fmt: skip
        outcome = run_shards(command[0], copy.path, "0", *command[1:])
        assert_one_line(outcome, 1, "input of sample", sample(dataset).record.key, "restore the shard")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy"]


def test_missing_and_wrong_weights_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = CodecSpec(name="encodec", stage="pre_quantizer", bandwidth=6.0, weights_sha256="a" * 64)
    source = make_dataset(tmp_path / "e", {"train": (1,)}, codec=codec)
    command = ["export", source, "0", "--to", "wav", "--out", tmp_path / "x", "--codec-weights"]
    outcome = run_shards(*command, tmp_path / "none.th")
    assert_one_line(outcome, 1, str(tmp_path / "none.th"))
    monkeypatch.setattr("shards.codec.load_codec", lambda *_, **__: load_codec("mdct"))
    outcome = run_shards(*command, tmp_path / "other.th")
    assert_one_line(outcome, 1, f"{source}: was made with encodec (weights aaaaaaaaaaaa)", "--codec-weights")
    assert not (tmp_path / "x").exists()


# listen


def test_listen_writes_both_sides_for_any_player(dataset: Dataset, tmp_path: Path) -> None:
    outcome = run_shards("listen", dataset.path, "0", "--out", tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    key = sample(dataset).record.key
    for side in SIDES:
        path = tmp_path / f"{key}.{side}.wav"
        assert str(path) in outcome.out
        assert soundfile.info(str(path)).subtype == "PCM_16"
        np.testing.assert_allclose(read(path).channels[:, 0], decoded(dataset, 0, side), atol=2 / 2**15)
    assert "0.53" in outcome.out


def test_listen_tells_level_and_peak_and_does_not_clip(dataset: Dataset, tmp_path: Path) -> None:
    outcome = run_shards("listen", dataset.path, "1", "--out", tmp_path, "--json")
    sides = outcome.json["sides"]
    audio = {side: decoded(dataset, 1, side) for side in SIDES}
    for side in SIDES:
        rms, peak = float(np.sqrt(np.mean(audio[side] ** 2))), float(np.abs(audio[side]).max())
        assert sides[side]["rms_db"] == pytest.approx(20 * np.log10(rms), abs=0.01)
        assert sides[side]["peak_db"] == pytest.approx(20 * np.log10(peak), abs=0.01)
        assert sides[side]["seconds"] == pytest.approx(40 * 320 / 24_000)
    assert sides["input"]["gain_db"] == -sides["input"]["peak_db"] < 0
    assert sides["target"]["gain_db"] == 0
    written = read(Path(sides["input"]["file"])).channels[:, 0]
    np.testing.assert_allclose(written, audio["input"] / np.abs(audio["input"]).max(), atol=2 / 2**15)
    assert "input goes beyond full scale" in run_shards("listen", dataset.path, "1", "--out", tmp_path).err


def test_listen_to_silence(dataset: Dataset, tmp_path: Path) -> None:
    assert run_shards("listen", dataset.path, "2", "--out", tmp_path).out.count("silent") == 4
    sides = run_shards("listen", dataset.path, "2", "--out", tmp_path, "--json").json["sides"]
    assert (sides["input"]["rms_db"], sides["input"]["peak_db"], sides["input"]["gain_db"]) == (None, None, 0)


def test_listen_writes_here_unless_told_otherwise(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_shards("listen", dataset.path, "0").code == 0
    assert len(list(tmp_path.glob("*.wav"))) == 2


# plot


def test_plot_draws_a_png(dataset: Dataset, tmp_path: Path) -> None:
    outcome = run_shards("plot", dataset.path, "0", "--out", tmp_path / "new" / "p.png")
    assert (outcome.code, outcome.out) == (0, f"{tmp_path / 'new' / 'p.png'}\n")
    content = (tmp_path / "new" / "p.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") > 1000


def test_plot_draws_an_svg_that_names_both_sides(dataset: Dataset, tmp_path: Path) -> None:
    content = run_shards("plot", dataset.path, "0", "--out", tmp_path / "p.svg", "--json").json
    record = sample(dataset).record
    assert content == {"key": record.key, "split": "train", "file": str(tmp_path / "p.svg")}
    text = " ".join(ElementTree.fromstring((tmp_path / "p.svg").read_text()).itertext())
    for part in (record.key, "rhythm", "harmony", record.input.path, record.target.path, "channel", "seconds"):
        assert part in text


def test_a_picture_depends_on_the_sample_alone(dataset: Dataset) -> None:
    for kind in ("png", "svg"):
        pictures = [plot_sample(sample(dataset, n), dataset.codec, kind) for n in (0, 0, 1)]  # type: ignore[arg-type]
        assert pictures[0] == pictures[1] != pictures[2]


def test_a_silent_sample_can_be_drawn(dataset: Dataset, tmp_path: Path) -> None:
    assert run_shards("plot", dataset.path, "2", "--out", tmp_path / "p.png").code == 0


def test_plot_refuses_another_kind_of_file(dataset: Dataset, tmp_path: Path) -> None:
    outcome = run_shards("plot", dataset.path, "0", "--out", tmp_path / "p.jpg")
    assert_one_line(outcome, 2, "p.jpg: not a picture's name; end it in .png or .svg")
    (tmp_path / "d.png").mkdir()
    assert_one_line(run_shards("plot", dataset.path, "0", "--out", tmp_path / "d.png"), 2, "is a folder; name a file")

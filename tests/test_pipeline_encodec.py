"""EnCodec from recordings to shards, back to sound and into training: the real network, on seeded weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import encodec.model
import numpy as np
import pytest
import torch
from command import Outcome, assert_one_line, run_pipeline, run_shards, run_training
from make_tracks import files
from make_weights import SeededWeights, sha256_of, write_converted

from pipeline.pairing import make_pairs, write_pairs
from pipeline.space import bytes_under, dataset_bytes
from pipeline.synthesize import SAMPLE_RATE, synthesize_pair
from shards.audio import read, write_wav
from shards.audit import verify
from shards.codec.encodec import SPEC, EncodecCodec
from shards.dataset import open_dataset
from shards.export import decode
from shards.files import read_json
from shards.schema import SIDES
from shards.wire import BLOCK, padding

SECONDS = 1.0
PAIRS = 3
ALLOW = "--codec-allow-unknown-weights"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def weights(seeded: SeededWeights) -> Path:
    """The seeded weights under a name that means something else to YAML."""
    path = seeded.path.with_name("seeded #1.th")
    os.link(seeded.path, path)
    return path


@pytest.fixture(scope="module")
def converted(seeded: SeededWeights) -> Path:
    """The same tensors as safetensors in the other naming, with the newer form of weight norm."""
    return write_converted(seeded.path.with_name("converted.safetensors"), seeded.state, newer_weight_norm=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs to train on and one held out, in `wav`, and `pairs.jsonl` over them."""
    root = tmp_path_factory.mktemp("encodec")
    for index in range(PAIRS):
        pair = synthesize_pair(1, index, SECONDS)
        split = "val" if index == PAIRS - 1 else "train"
        for side, samples in (("input", pair.drums), ("target", pair.piano)):
            write_wav(root / "wav" / split / f"pair_{index:04d}_{side}.wav", samples, SAMPLE_RATE)
    write_pairs(root / "pairs.jsonl", make_pairs(root / "wav", "suffix", SECONDS, seed=0, val_fraction=0.3)[0])
    return root


def encode(root: Path, out: Path, weights: Path, *options: object) -> Outcome:
    return run_pipeline("encode", root / "pairs.jsonl", "--out", out, "--codec-weights", weights, *options)


@pytest.fixture(scope="module")
def datasets(root: Path, weights: Path) -> dict[str, Path]:
    """The same pairs in each representation, made by the command without Ray; that of codes has FLAC beside them."""
    made = {latents: root / latents / "ds" for latents in ("float16", "float32", "codes")}
    for latents, out in made.items():
        audio = "both" if latents == "codes" else "none"
        outcome = encode(root, out, weights, ALLOW, "--local", "--latents", latents, "--audio", audio)
        assert outcome.code == 0, outcome
    return made


@pytest.fixture(scope="module")
def from_converted(root: Path, converted: Path) -> Path:
    """The float16 dataset once more, with the converted weights."""
    out = root / "converted" / "ds"
    assert encode(root, out, converted, ALLOW, "--local").code == 0
    return out


@pytest.fixture(scope="module")
def codec(weights: Path) -> EncodecCodec:
    return EncodecCodec.load(weights, allow_unknown_weights=True)


def window(root: Path, path: str) -> torch.Tensor:
    """A side's sound [1, 1, n]."""
    return torch.from_numpy(read(root / "wav" / path).mono(SAMPLE_RATE))[None, None]


def decibels(signal: np.ndarray[Any, Any], error: np.ndarray[Any, Any]) -> float:
    """Signal to noise ratio in dB; what is constant is no signal."""
    return 10 * float(np.log10(signal.astype(np.float64).var() / np.square(error, dtype=np.float64).mean()))


# Into shards


def test_unknown_weights_are_refused_before_anything_is_written(
    root: Path, weights: Path, seeded: SeededWeights, tmp_path: Path
) -> None:
    outcome = encode(root, tmp_path / "ds", weights, "--local")
    assert_one_line(outcome, 1, str(weights), seeded.sha256, ALLOW)
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_tells_the_weights_and_that_they_were_allowed(
    datasets: dict[str, Path], seeded: SeededWeights
) -> None:
    for latents, folder in datasets.items():
        manifest = open_dataset(folder).manifest
        stage = "quantized" if latents == "codes" else "pre_quantizer"
        assert (manifest.codec.name, manifest.codec.stage, manifest.codec.bandwidth) == ("encodec", stage, 6.0)
        assert manifest.codec.weights_sha256 == seeded.sha256
        assert manifest.build.config["codec"] == {"name": "encodec", "allow_unknown_weights": True}
        assert str(seeded.path.parent) not in (folder / "dataset.json").read_text(), "a path of this machine"
        assert verify(folder, "full").problems == ()


def test_the_latents_are_those_of_the_package_s_encoder(
    datasets: dict[str, Path], seeded: SeededWeights, root: Path
) -> None:
    model = encodec.model.EncodecModel.encodec_model_24khz(pretrained=False)
    model.load_state_dict(seeded.state)
    half, whole = open_dataset(datasets["float16"]), open_dataset(datasets["float32"])
    for number in range(PAIRS):
        stored, exact = (dataset.read(dataset.locate(str(number))) for dataset in (half, whole))
        for side in SIDES:
            with torch.no_grad():
                expected = model.encoder(window(root, getattr(stored.record, side).path))[0].numpy()
            level = float(np.sqrt(np.mean(np.square(expected))))
            assert 1 < level < 30, "as loud as real latents"
            found = getattr(exact, side)
            assert (found.shape, found.dtype) == ((128, 75), np.float32)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * level)
            np.testing.assert_array_equal(getattr(stored, side), found.astype(np.float16))


def test_the_same_weights_in_the_other_naming_give_the_same_arrays(
    datasets: dict[str, Path], from_converted: Path, converted: Path
) -> None:
    one, other = open_dataset(datasets["float16"]), open_dataset(from_converted)
    assert other.codec.weights_sha256 == sha256_of(converted) != one.codec.weights_sha256
    assert other.manifest.fingerprint != one.manifest.fingerprint
    for number in range(PAIRS):
        first, second = (dataset.read(dataset.locate(str(number))) for dataset in (one, other))
        assert first.record.key != second.record.key, "another file is another codec"
        for side in SIDES:
            assert getattr(first, side).tobytes() == getattr(second, side).tobytes()


def test_codes_are_those_of_the_quantizer_and_measured_as_latents(
    datasets: dict[str, Path], codec: EncodecCodec, root: Path
) -> None:
    dataset = open_dataset(datasets["codes"])
    assert [(field.dtype, field.shape) for field in dataset.manifest.fields] == [("int16", (8, 75))] * 2
    values = []
    for number in range(PAIRS):
        sample = dataset.read(dataset.locate(str(number)))
        side = sample.record.target
        latents = codec.encode(window(root, side.path))
        np.testing.assert_array_equal(sample.target, codec.quantize(latents)[0].numpy())
        back = codec.dequantize(torch.tensor(sample.target)[None])
        noise = (latents - back).square().sum() / latents.square().sum()
        assert side.cast_snr_db == pytest.approx(-10 * float(torch.log10(noise)), abs=0.02)
        values.append(back[0].numpy())
        assert set(sample.audio) == set(SIDES)
    stats: Any = read_json(datasets["codes"] / "stats.json")
    together = np.concatenate(values, 1)
    np.testing.assert_allclose(stats["target"]["mean"], together.mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats["target"]["max"], together.max(1), rtol=1e-6)

    shown = run_shards("show", datasets["codes"], "0", "--json").json
    arrays = shown["arrays"]["input"]
    assert (shown["stored"], arrays["dtype"], arrays["shape"]) == ("codes", "int16", [8, 75])
    assert 0 <= arrays["min"] < arrays["max"] <= 1023
    assert shown["flac_bytes"].keys() == {"input", "target"}


@pytest.mark.slow
def test_ray_makes_the_same_codes(
    ray_cluster: Any, root: Path, weights: Path, datasets: dict[str, Path], tmp_path: Path
) -> None:
    options = (ALLOW, "--latents", "codes", "--audio", "both", "--set", "encoder.max_actors=2")
    assert encode(root, tmp_path / "ds", weights, *options).code == 0
    assert files(tmp_path / "ds") == files(datasets["codes"])
    assert open_dataset(tmp_path / "ds").manifest.fingerprint == open_dataset(datasets["codes"]).manifest.fingerprint


@pytest.mark.parametrize("latents", ["float16", "float32", "codes"])
def test_the_size_of_a_dataset_is_known_before_it_is_made(datasets: dict[str, Path], latents: Any) -> None:
    arrays = 2 * PAIRS * 75 * {"float16": 256, "float32": 512, "codes": 16}[latents]
    size = dataset_bytes(PAIRS, SPEC, latents, round(SECONDS * SAMPLE_RATE), (), samples_per_shard=2)
    dataset = open_dataset(datasets[latents])
    flac = [sound for n in range(PAIRS) for sound in dataset.read(dataset.locate(str(n))).audio.values()]
    written = bytes_under(dataset.path) - sum(BLOCK + len(sound) + len(padding(len(sound))) for sound in flac)
    assert len(flac) == (2 * PAIRS if latents == "codes" else 0), "its size depends on the music"
    assert arrays < size == pytest.approx(written, rel=0.04)


# Back to sound


@pytest.mark.parametrize("latents", ["float16", "codes"])
def test_exported_sound_is_the_decoder_s_and_as_long_as_the_window(
    datasets: dict[str, Path], weights: Path, codec: EncodecCodec, tmp_path: Path, latents: str
) -> None:
    dataset = open_dataset(datasets[latents])
    command = ("export", dataset.path, "0", "2", "--to", "wav", "--out", tmp_path, "--codec-weights", weights)
    assert run_shards(*command).code == 0
    for number in (0, 2):
        sample = dataset.read(dataset.locate(str(number)))
        for side in SIDES:
            (heard,) = read(tmp_path / f"{sample.record.key}.{side}.wav").channels.T
            assert heard.shape == (round(SECONDS * SAMPLE_RATE),)
            assert np.isfinite(heard).all()
            stored = torch.from_numpy(getattr(sample, side).copy())[None]
            with torch.inference_mode():
                expected = codec.decode(codec.latents(stored))[0, 0].numpy()
            np.testing.assert_array_equal(heard, expected)
            assert heard.std() > 0.01, "sound, and no constant"
    assert len(list(tmp_path.iterdir())) == 4


def test_a_sample_of_codes_can_be_listened_to(datasets: dict[str, Path], weights: Path, tmp_path: Path) -> None:
    said = run_shards("listen", datasets["codes"], "1", "--out", tmp_path, "--codec-weights", weights, "--json").json
    for side in SIDES:
        about = said["sides"][side]
        (heard,) = read(Path(about["file"])).channels.T
        assert about["seconds"] == SECONDS == len(heard) / SAMPLE_RATE
        assert 0.01 < float(np.abs(heard).max()) <= 1


def test_half_precision_costs_less_than_anyone_hears(datasets: dict[str, Path], codec: EncodecCodec) -> None:
    half, whole = open_dataset(datasets["float16"]), open_dataset(datasets["float32"])
    for number in range(PAIRS):
        stored, exact = (decode(codec, dataset.read(dataset.locate(str(number)))) for dataset in (half, whole))
        for side in SIDES:
            sound = exact[side].samples
            assert 60 <= decibels(sound, stored[side].samples - sound) < 120, "a cast was made, and costs little"


def test_sound_is_refused_with_other_weights_than_the_dataset_s(
    datasets: dict[str, Path], converted: Path, seeded: SeededWeights, tmp_path: Path
) -> None:
    command = ("export", datasets["float16"], "0", "--to", "wav", "--out", tmp_path, "--codec-weights", converted)
    assert_one_line(run_shards(*command), 1, seeded.sha256[:12], sha256_of(converted)[:12], "--codec-weights")
    assert list(tmp_path.iterdir()) == []


# Into training


def train(shards: Path, run: Path, weights: Path) -> Outcome:
    settings = ["train.epochs=1", "data.batch_size=1", "model.cascade.layers=1"]
    settings += ["train.audio_crop_seconds=0.1"]
    options = [f"--set={setting}" for setting in settings]
    return run_training("launch", "--shards", shards, "--run-dir", run, "--local", "--codec-weights", weights, *options)


@pytest.mark.slow
def test_a_run_on_codes_trains_and_makes_music(
    datasets: dict[str, Path], weights: Path, root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert train(datasets["codes"], run, weights).code == 0
    sources = ["--input", root / "wav/val/pair_0002_input.wav", "--target", root / "wav/val/pair_0002_target.wav"]
    for name, given in (("shards", ["--shards", datasets["codes"], "--count", "1"]), ("files", sources)):
        command = ["generate", "--checkpoint", run / "checkpoints" / "best", "--out", tmp_path / name]
        assert run_training(*command, "--codec-weights", weights, *given).code == 0
        (heard,) = read(tmp_path / name / "piece_000" / "output.wav").channels.T
        assert len(heard) == round(SECONDS * SAMPLE_RATE)
        assert np.isfinite(heard).all()


def test_training_refuses_shards_made_with_other_weights(
    datasets: dict[str, Path], converted: Path, seeded: SeededWeights, tmp_path: Path
) -> None:
    outcome = train(datasets["float16"], tmp_path / "run", converted)
    assert_one_line(outcome, 1, seeded.sha256[:12], sha256_of(converted)[:12], "--codec-weights")
    assert list(tmp_path.iterdir()) == []

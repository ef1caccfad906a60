"""Generation: levels, limits, numbers and files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from command import Outcome, assert_one_line, run_training
from make_data import make_dataset

from shards import open_dataset
from shards.codec import load_codec
from shards.console import run
from shards.errors import CascadenceError, DatasetError
from shards.schema import CodecSpec
from shards.settings import load_settings
from training.checkpoint import CheckpointRecord, load_model, open_checkpoint, save_checkpoint
from training.cli.app import app
from training.config import Config
from training.generate import generate
from training.levels import soft_limit
from training.models.build import build_model
from training.models.cascade import Cascade
from training.models.compositional_agent import COMPONENTS
from training.pieces import read_piece
from training.sources import pairs_from_shards, stored_pair
from training.state import new_state

SMALL = ["model.cascade.layers=1", "model.cascade.feedforward=1"]
CONFIG = load_settings(Config, None, SMALL)
MDCT = CodecSpec(name="mdct", stage="transform")


def save(path: Path, config: Config) -> Path:
    """A checkpoint of a model that has learnt nothing."""
    state = new_state(config, 128, torch.device("cpu"))
    record = CheckpointRecord(
        codec=MDCT, dataset_fingerprint="f" * 64, frames=75, progress=state.progress.as_json(), metrics={}
    )
    save_checkpoint(path, state, config, record)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("run") / "best", CONFIG)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "ds", {"train": [3], "val": [2]}, frames=75)


def tone(
    frequency: float, seconds: float = 1.0, level: float = 0.2
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    time = np.arange(round(seconds * 24_000)) / 24_000
    return (level * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def test_soft_limit_keeps_what_is_quiet_and_never_reaches_one() -> None:
    samples = np.linspace(-5, 5, 1001).astype(np.float32)
    limited = soft_limit(samples)
    quiet = np.abs(samples) <= 0.9
    np.testing.assert_array_equal(limited[quiet], samples[quiet])
    assert np.abs(limited).max() < 1.0
    assert (np.diff(limited) >= 0).all()


def test_a_piece_has_the_level_of_its_sources() -> None:
    torch.manual_seed(0)
    model = build_model(CONFIG.model, 128).eval()
    codec = load_codec("mdct")
    sources = [codec.encode(torch.from_numpy(tone(f))[None, None])[0] for f in (220.0, 880.0)]
    piece = generate(model, codec, stored_pair("tones", sources[0], sources[1]))
    assert set(piece.audio) == {"input", "target", "output"}
    assert all(len(samples) == 24_000 for samples in piece.audio.values())
    wanted = np.sqrt((piece.metrics["input_rms"] ** 2 + piece.metrics["target_rms"] ** 2) / 2)
    assert piece.metrics["output_rms"] == pytest.approx(wanted, rel=0.02)
    assert piece.metrics["gain"] <= 3.0


def test_gain_stays_within_three_times() -> None:
    torch.manual_seed(0)
    model = build_model(CONFIG.model, 128).eval()
    codec = load_codec("mdct")
    # Equal sources of opposite sign cancel in the stages' sums: the output is quiet, and would be made loud noise.
    latents = codec.encode(torch.from_numpy(tone(440.0))[None, None])[0]
    piece = generate(model, codec, stored_pair("cancelling", latents, -latents))
    assert piece.metrics["gain"] <= 3.0


def test_a_piece_is_measured_as_the_model_made_it() -> None:
    torch.manual_seed(0)
    model = build_model(CONFIG.model, 128).eval()
    codec = load_codec("mdct")
    sources = [codec.encode(torch.from_numpy(tone(f))[None, None])[0] for f in (220.0, 880.0)]
    piece = generate(model, codec, stored_pair("tones", sources[0], sources[1]))
    assert piece.metrics["rms_ratio"] * piece.metrics["gain"] == pytest.approx(1, rel=1e-4), "before it is levelled"
    for side in ("input", "target"):
        heard = np.corrcoef(piece.audio["output"], piece.audio[side])[0, 1]
        assert piece.metrics[f"waveform_correlation_{side}"] == pytest.approx(heard, abs=1e-3)
    assert {"complementarity", "dominance_correlation", "rhythm_correlation_input"} <= piece.metrics.keys()


def test_pieces_from_all_pairs_of_a_split_are_written_whole(
    checkpoint: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", "--checkpoint", str(checkpoint), "--shards", str(dataset), "--split", "val"]
    with pytest.raises(SystemExit) as done:
        run(app, "training", [*arguments, "--count", "9", "--out", str(tmp_path / "out"), "--json"])
    assert done.value.code in {0, None}
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert printed["pieces"] == written["pieces"]
    keys = [row["key"].decode() for row in open_dataset(dataset).index("val")]
    assert [piece["name"] for piece in written["pieces"]] == keys
    for number in range(2):
        folder = tmp_path / "out" / f"piece_{number:03d}"
        for name in ("input", "target", "output"):
            info = soundfile.info(folder / f"{name}.wav")
            assert (info.samplerate, info.channels, info.frames) == (24_000, 1, 24_000)
            assert (info.format, info.subtype) == ("WAV", "PCM_24")
        for picture in ("waveforms.png", "spectrograms.png"):
            assert (folder / picture).read_bytes().startswith(b"\x89PNG")


def generated(checkpoint: Path, out: Path, *arguments: object) -> Outcome:
    return run_training("generate", "--checkpoint", checkpoint, "--out", out, *arguments)


def test_masks_are_kept_as_numbers_that_need_no_pickle(checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    assert generated(checkpoint, tmp_path, "--shards", dataset, "--count", 1).code == 0
    with np.load(tmp_path / "piece_000" / "masks.npz", allow_pickle=False) as stored:
        masks = {name: stored[name] for name in stored.files}
    assert {name: mask.shape for name, mask in masks.items()} == {"input": (128, 75), "target": (128, 75)}
    (pair,) = pairs_from_shards(open_dataset(dataset), open_checkpoint(checkpoint), "val", 1)
    made = generate(load_model(checkpoint), load_codec("mdct"), pair)
    assert made.metrics["complementarity"] == pytest.approx(
        1 - float((made.masks["input"] * made.masks["target"]).mean())
    )
    for side, mask in masks.items():
        np.testing.assert_allclose(mask, made.masks[side], atol=1e-3)
    saved = read_piece(tmp_path / "piece_000")
    np.testing.assert_array_equal(saved.piece.masks["input"], masks["input"].astype(np.float32))
    assert saved.piece.labels == {"input": "val-0_input.wav", "target": "val-0_target.wav"}


def test_sound_is_written_in_24_bits_without_loss_where_flac_is_asked_for(
    checkpoint: Path, dataset: Path, tmp_path: Path
) -> None:
    assert generated(checkpoint, tmp_path, "--shards", dataset, "--count", 1, "--format", "flac").code == 0
    (pair,) = pairs_from_shards(open_dataset(dataset), open_checkpoint(checkpoint), "val", 1)
    made = generate(load_model(checkpoint), load_codec("mdct"), pair)
    for name, expected in made.audio.items():
        path = tmp_path / "piece_000" / f"{name}.flac"
        info = soundfile.info(path)
        assert (info.format, info.subtype) == ("FLAC", "PCM_24")
        heard, _ = soundfile.read(path, dtype="float64")
        assert np.abs(heard - expected).max() < 1.01 / 2**23 + 1e-6


def test_shuffled_targets_are_never_their_own(checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    split = open_dataset(make_dataset(tmp_path / "many", {"train": [4, 3], "val": [1]}, frames=40))
    opened = open_checkpoint(checkpoint)
    plain = list(pairs_from_shards(split, opened, "train", 7))
    shuffled = list(pairs_from_shards(split, opened, "train", 7, shuffle_seed=3))
    assert [pair.origin["input"] for pair in shuffled] == [pair.origin["input"] for pair in plain]
    given = [pair.origin["target"] for pair in shuffled]
    assert sorted(given) == sorted(pair.origin["target"] for pair in plain)
    assert all(own.origin["target"] != other for own, other in zip(plain, given, strict=True))
    targets = {pair.origin["target"]: pair.target for pair in plain}
    assert all(torch.equal(pair.target, targets[pair.origin["target"]]) for pair in shuffled)
    again = [pair.origin["target"] for pair in pairs_from_shards(split, opened, "train", 7, shuffle_seed=3)]
    assert again == given
    assert_one_line(
        generated(checkpoint, tmp_path / "out", "--shards", tmp_path / "many", "--shuffle-targets"),
        2,
        "the split 'val' has one pair; leave --shuffle-targets out",
    )


def test_finished_pieces_are_kept(checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    arguments = (checkpoint, tmp_path, "--shards", dataset, "--split", "train", "--json")
    first = generated(*arguments, "--count", 1).json
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("output.wav")}
    second = generated(*arguments, "--count", 2)
    assert second.code == 0, second.err
    assert second.json["pieces"][:1] == first["pieces"]
    assert len(second.json["pieces"]) == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert generated(*arguments, "--count", 1, "--overwrite").code == 0
    changed = [path for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert [path.parent.name for path in changed] == ["piece_000"]


def test_a_piece_of_something_else_is_not_replaced_by_mistake(checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert generated(checkpoint, out, "--shards", dataset, "--count", 1).code == 0
    heard = (out / "piece_000" / "output.wav").read_bytes()
    other = save(tmp_path / "other", load_settings(Config, None, [*SMALL, "model.agent=none"]))
    for arguments in (
        (other, out, "--shards", dataset, "--count", 1),
        (checkpoint, out, "--shards", dataset, "--count", 1, "--split", "train"),
        (checkpoint, out, "--shards", dataset, "--count", 1, "--notch"),
        (checkpoint, out, "--shards", dataset, "--count", 1, "--format", "flac"),
    ):
        assert_one_line(
            generated(*arguments), 2, "piece_000: is of another checkpoint, source or setting", "--overwrite"
        )
    assert (out / "piece_000" / "output.wav").read_bytes() == heard
    assert generated(other, out, "--shards", dataset, "--count", 1, "--overwrite").code == 0
    assert (out / "piece_000" / "output.wav").read_bytes() != heard


def test_windows_longer_than_the_models_are_cut_and_batches_change_nothing(checkpoint: Path, tmp_path: Path) -> None:
    longer = open_dataset(make_dataset(tmp_path / "ds", {"train": [1]}, frames=400))
    (pair,) = pairs_from_shards(longer, open_checkpoint(checkpoint), "train", 1)
    assert pair.input.shape[1:] == (128, 75)
    assert len(pair.input) > 5
    model, codec = load_model(checkpoint), load_codec("mdct")
    made = [generate(model, codec, pair, batch_size=size) for size in (1, 4, 100)]
    assert len(made[0].audio["output"]) == 400 * 320
    assert made[0].masks["input"].shape == (128, 400)
    for other in made[1:]:
        np.testing.assert_allclose(other.audio["output"], made[0].audio["output"], atol=1e-4)
        assert other.metrics == pytest.approx(made[0].metrics, abs=1e-3)


def test_misuse_and_mismatch_get_one_line(
    checkpoint: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["generate", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]
    for arguments, code, message in (
        (base, 2, "either --shards, or both --input and --target"),
        (
            [*base, "--shards", str(dataset), "--split", "test"],
            2,
            "no split 'test'; choose one of: train, val",
        ),
        ([*base, "--shards", str(tmp_path / "nothing")], 1, "there is no such dataset"),
    ):
        with pytest.raises(SystemExit) as done:
            run(app, "training", arguments)
        said = capsys.readouterr().err
        assert done.value.code == code, said
        assert message in said
        assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_another_codecs_shards_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    encodec = CodecSpec(name="encodec", stage="pre_quantizer", bandwidth=6.0, weights_sha256="a" * 64)
    other = open_dataset(make_dataset(tmp_path / "ds", {"train": [2]}, frames=75, codec=encodec))
    with pytest.raises(DatasetError, match=r"made by the codec encodec \(weights aaaaaaaaaaaa\).*for mdct"):
        pairs_from_shards(other, open_checkpoint(checkpoint), "train", 1)


def test_an_output_that_is_not_finite_is_refused() -> None:
    model = build_model(CONFIG.model, 128).eval()
    assert isinstance(model, Cascade)
    torch.nn.init.constant_(model.stages[1].projection.norm.bias, float("inf"))
    latents = torch.randn(128, 10)
    with pytest.raises(CascadenceError, match="output is not finite"):
        generate(model, load_codec("mdct"), stored_pair("broken", latents, latents))


@pytest.mark.parametrize("side", ["input", "target"])
def test_a_source_that_is_not_finite_is_named(side: str) -> None:
    model = build_model(CONFIG.model, 128).eval()
    sources = {"input": torch.randn(128, 10), "target": torch.randn(128, 10)}
    sources[side][3, 4] = float("nan")
    with pytest.raises(DatasetError, match=f"sample broken: its {side} holds values that are not finite"):
        generate(model, load_codec("mdct"), stored_pair("broken", sources["input"], sources["target"]))


@pytest.mark.parametrize(
    ("kind", "measures"),
    [
        (["model.agent=none", "model.cascade.stages=1"], set()),
        (["model.agent=none", "model.fixed_masks.kind=energy"], {"complementarity"}),
        (["model.agent=compositional", "model.compositional.layers=1"], {f"{name}_weight" for name in COMPONENTS}),
    ],
)
def test_every_kind_of_model_makes_pieces_and_tells_of_itself(
    dataset: Path, tmp_path: Path, kind: list[str], measures: set[str]
) -> None:
    saved = save(tmp_path / "best", load_settings(Config, None, [*SMALL, *kind]))
    (pair,) = pairs_from_shards(open_dataset(dataset), open_checkpoint(saved), "val", 1)
    metrics = generate(load_model(saved), load_codec("mdct"), pair).metrics
    assert measures <= set(metrics)
    assert ("complementarity" in metrics) == ("complementarity" in measures)
    assert 0.3 < metrics["output_rms"] / metrics["input_rms"] < 3


def test_a_model_without_masks_has_no_complementarity_to_show(dataset: Path, tmp_path: Path) -> None:
    saved = save(tmp_path / "best", load_settings(Config, None, [*SMALL, "model.agent=none"]))
    shown = run_training(
        "generate", "--checkpoint", saved, "--shards", dataset, "--count", 1, "--out", tmp_path / "out"
    )
    assert shown.code == 0, shown.err
    assert shown.out.splitlines()[1].rstrip().endswith(" -")

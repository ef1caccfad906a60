"""Two recordings of any length, rate and number of channels become a piece: nothing is lost, and no seam is heard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import torch
from command import Outcome, assert_one_line, run_training
from torch import Tensor, nn

from shards.audio import Samples, write_wav
from shards.codec import load_codec
from shards.schema import CodecSpec
from shards.settings import load_settings
from training.checkpoint import CheckpointRecord, load_model, save_checkpoint
from training.config import Config
from training.generate import generate
from training.levels import soft_limit
from training.models.cascade import ModelOutput
from training.models.masking_agent import MaskingOutput
from training.sources import Length, pair_from_audio
from training.state import new_state

if TYPE_CHECKING:
    from make_weights import SeededWeights

RATE, HOP, WINDOW = 24_000, 320, 75
MDCT = CodecSpec(name="mdct", stage="transform")
SMALL = ["model.cascade.layers=1", "model.cascade.feedforward=1", "model.masking.channels=16"]


class Echo(nn.Module):
    """A model that gives its input back, and masks that depend on each place alone."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, source: Tensor, goal: Tensor) -> ModelOutput:
        mask = torch.sigmoid(source)
        one = torch.ones(len(source), 1, 1)
        return ModelOutput(source, MaskingOutput(mask, 1 - mask, source, goal, (source, goal)), one, one == 0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = load_settings(Config, None, SMALL)
    state = new_state(config, 128, torch.device("cpu"))
    record = CheckpointRecord(
        codec=MDCT, dataset_fingerprint="f" * 64, frames=WINDOW, progress=state.progress.as_json(), metrics={}
    )
    path = tmp_path_factory.mktemp("run") / "best"
    save_checkpoint(path, state, config, record)
    return path


def music(samples: int, seed: int = 0) -> Samples:
    """A melody of soft tones below the 4.8 kHz that the codec keeps."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / RATE
    notes = rng.uniform(100, 2_000, samples // 6_000 + 1)
    phase = 2 * np.pi * np.cumsum(np.repeat(notes, 6_000)[:samples]) / RATE
    return (0.2 * np.sin(phase) * (0.6 + 0.4 * np.sin(2 * np.pi * time))).astype(np.float32)


def made_of(checkpoint: Path, out: Path, first: Path, second: Path, *arguments: object) -> Outcome:
    files = ("--input", first, "--target", second)
    return run_training("generate", "--checkpoint", checkpoint, "--out", out, *files, "--json", *arguments)


@pytest.mark.parametrize("samples", [2 * HOP, 5_000, WINDOW * HOP, WINDOW * HOP + 1, 130_001, 400_000])
def test_a_model_that_changes_nothing_gives_the_recording_back_without_a_seam(samples: int, tmp_path: Path) -> None:
    sound, codec = music(samples), load_codec("mdct")
    write_wav(tmp_path / "a.wav", sound, RATE, "FLOAT")
    pair = pair_from_audio(codec, tmp_path / "a.wav", tmp_path / "a.wav", WINDOW)
    piece = generate(Echo(), codec, pair)
    whole = codec.encode(torch.from_numpy(sound)[None, None])
    expected = codec.decode(whole)[0, 0, :samples].numpy()
    # But for its last frame: of a single window, silence follows, and what the codec folds there can be undone.
    inside = max(samples - HOP, 0) if samples < WINDOW * HOP else samples
    assert len(piece.audio["output"]) == samples
    assert piece.metrics["gain"] == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_allclose(piece.audio["output"][:inside], expected[:inside], atol=2e-5)
    np.testing.assert_allclose(piece.audio["input"], piece.audio["output"], atol=2e-5)


def test_masks_of_windows_lie_where_those_of_the_whole_would(tmp_path: Path) -> None:
    sound, codec = music(200_000), load_codec("mdct")
    write_wav(tmp_path / "a.wav", sound, RATE, "FLOAT")
    piece = generate(Echo(), codec, pair_from_audio(codec, tmp_path / "a.wav", tmp_path / "a.wav", WINDOW))
    whole = torch.sigmoid(codec.encode(torch.from_numpy(sound)[None, None])[0]).numpy()
    assert piece.masks["input"].shape == whole.shape
    np.testing.assert_allclose(piece.masks["input"], whole, atol=1e-4)
    np.testing.assert_allclose(piece.masks["input"] + piece.masks["target"], 1, atol=1e-5)


@pytest.mark.parametrize(
    ("length", "expected"), [("shorter", 30_000), ("longer", 70_001), ("input", 70_001), ("target", 30_000)]
)
def test_one_of_them_decides_how_long_the_piece_is(length: Length, expected: int, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", music(70_001), RATE)
    write_wav(tmp_path / "b.wav", music(30_000, 1), RATE)
    codec = load_codec("mdct")
    pair = pair_from_audio(codec, tmp_path / "a.wav", tmp_path / "b.wav", WINDOW, length=length)
    piece = generate(Echo(), codec, pair)
    assert {name: len(samples) for name, samples in piece.audio.items()} == dict.fromkeys(piece.audio, expected)


def test_a_short_recording_is_repeated_without_a_click_or_followed_by_silence(tmp_path: Path) -> None:
    loop = np.full(20_000, 0.25, np.float32) * np.sin(np.arange(20_000) * 0.1 + 1).astype(np.float32)
    write_wav(tmp_path / "a.wav", music(70_000), RATE)
    write_wav(tmp_path / "b.wav", loop, RATE, "FLOAT")
    codec = load_codec("mdct")
    heard = {}
    for fill in ("repeat", "silence"):
        files = tmp_path / "a.wav", tmp_path / "b.wav"
        pair = pair_from_audio(codec, *files, WINDOW, length="input", fill=fill)  # type: ignore[arg-type]
        heard[fill] = generate(Echo(), codec, pair).audio["target"]
    repeats = heard["repeat"][:60_000].reshape(3, 20_000)
    np.testing.assert_allclose(repeats[1, 500:-500], repeats[0, 500:-500], atol=0.01)
    np.testing.assert_allclose(repeats[2, 500:-500], repeats[0, 500:-500], atol=0.01)
    steps = np.abs(np.diff(heard["repeat"][:60_000]))
    assert steps[19_900:20_100].max() < 1.2 * steps[5_000:15_000].max(), "the seam is no louder than the sound"
    assert np.abs(heard["silence"][21_000:]).max() < 1e-3
    assert np.abs(heard["silence"][:19_000]).max() > 0.2


def test_other_rates_and_channels_are_brought_to_the_codecs(checkpoint: Path, tmp_path: Path) -> None:
    seconds = 2.5
    for name, rate, channels in (("a.wav", 48_000, 2), ("b.flac", 11_025, 1)):
        time = np.arange(round(seconds * rate)) / rate
        sound = 0.2 * np.sin(2 * np.pi * 440 * time)
        soundfile.write(tmp_path / name, np.stack([sound] * channels, 1), rate)
    done = made_of(checkpoint, tmp_path / "out", tmp_path / "a.wav", tmp_path / "b.flac")
    assert done.code == 0, done.err
    for name in ("input", "target", "output"):
        heard, rate = soundfile.read(tmp_path / "out" / "piece_000" / f"{name}.wav")
        assert rate == RATE
        assert abs(len(heard) - round(seconds * RATE)) <= 2
        if name != "output":
            spectrum = np.abs(np.fft.rfft(heard))
            assert spectrum.argmax() * RATE / len(heard) == pytest.approx(440, abs=1), name
    (piece,) = done.json["pieces"]
    assert piece["name"] == "a+b"
    assert 0.5 < piece["output_rms"] / piece["input_rms"] < 2


def test_silence_is_said_and_the_piece_is_finite(checkpoint: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", music(50_000), RATE)
    write_wav(tmp_path / "quiet.wav", np.zeros(50_000, np.float32), RATE)
    for number, (first, second, silent) in enumerate(
        (("a.wav", "quiet.wav", ["target"]), ("quiet.wav", "quiet.wav", ["input", "target"]))
    ):
        done = made_of(checkpoint, tmp_path / f"out{number}", tmp_path / first, tmp_path / second)
        assert done.code == 0, done.err
        told = [line for line in done.err.splitlines() if "is not installed" not in line]
        assert told == [f"silent: quiet.wav: the {side} can't be heard" for side in silent]
        heard, _ = soundfile.read(tmp_path / f"out{number}" / "piece_000" / "output.wav")
        assert np.isfinite(heard).all()
        assert all(np.isfinite(value) for value in done.json["pieces"][0].values() if isinstance(value, float))
    assert np.abs(heard).max() < 1e-3, "nothing comes of nothing"


def test_a_recording_that_cannot_be_used_is_named_in_one_line(checkpoint: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", music(50_000), RATE)
    spoilt = music(50_000)
    spoilt[70] = np.nan
    soundfile.write(tmp_path / "nan.wav", spoilt, RATE, subtype="FLOAT")
    write_wav(tmp_path / "short.wav", music(100), RATE)
    (tmp_path / "text.wav").write_text("no sound")
    for name, said in (
        ("nan.wav", "not finite: it holds values that are no numbers"),
        ("short.wav", "is too short"),
        ("text.wav", "unreadable"),
        ("none.wav", "there is no such file"),
    ):
        done = made_of(checkpoint, tmp_path / "out", tmp_path / "a.wav", tmp_path / name)
        assert_one_line(done, 1, name, said)
    assert not (tmp_path / "out").exists()


def test_other_recordings_in_the_same_folder_are_told_apart(checkpoint: Path, tmp_path: Path) -> None:
    for name, seed in (("a.wav", 0), ("b.wav", 1)):
        write_wav(tmp_path / name, music(30_000, seed), RATE)
    arguments = (checkpoint, tmp_path / "out", tmp_path / "a.wav", tmp_path / "b.wav")
    assert made_of(*arguments).code == 0
    assert made_of(*arguments).code == 0
    assert_one_line(made_of(*arguments, "--length", "input"), 2, "is of another checkpoint, source or setting")
    write_wav(tmp_path / "b.wav", music(30_000, 2), RATE)
    assert_one_line(made_of(*arguments), 2, "is of another checkpoint, source or setting")


def test_what_rings_is_attenuated_on_request(checkpoint: Path, tmp_path: Path) -> None:
    time, codec = np.arange(48_000) / RATE, load_codec("mdct")
    write_wav(tmp_path / "a.wav", music(48_000) + 0.1 * np.sin(2 * np.pi * 2_000 * time).astype(np.float32), RATE)
    pair = pair_from_audio(codec, tmp_path / "a.wav", tmp_path / "a.wav", WINDOW)
    done = made_of(checkpoint, tmp_path / "out", tmp_path / "a.wav", tmp_path / "a.wav", "--notch")
    assert done.code == 0, done.err
    notched, _ = soundfile.read(tmp_path / "out" / "piece_000" / "output.wav", dtype="float32")
    plain = generate(load_model(checkpoint), codec, pair)
    loud = [np.abs(np.fft.rfft(samples))[3_960:4_041].max() for samples in (plain.audio["output"], notched)]
    (piece,) = done.json["pieces"]
    assert piece["notch_db"] > 6
    assert "notch_db" not in plain.metrics
    assert loud[1] < 0.6 * loud[0]
    assert piece["output_rms"] == pytest.approx(plain.metrics["output_rms"], rel=0.02), "the level is set afterwards"


@pytest.mark.slow
@pytest.mark.parametrize("quantized", [False, True])
def test_a_codec_with_a_memory_is_taken_window_by_window_too(
    quantized: bool, seeded: SeededWeights, tmp_path: Path
) -> None:
    codec = load_codec("encodec", seeded.path, allow_unknown_weights=True)
    write_wav(tmp_path / "a.wav", music(70_001), RATE)
    pair = pair_from_audio(codec, tmp_path / "a.wav", tmp_path / "a.wav", WINDOW, quantized=quantized, batch_size=2)
    assert pair.input.shape == ((4, 8, WINDOW) if quantized else (4, 128, WINDOW))
    piece = generate(Echo(), codec, pair, batch_size=3)
    assert len(piece.audio["output"]) == 70_001
    assert np.isfinite(piece.audio["output"]).all()
    np.testing.assert_allclose(piece.audio["output"], piece.audio["input"], atol=1e-4)
    starts = pair.cut.starts
    alone = codec.decode(codec.latents(pair.input[:1]))[0, 0].numpy()
    before = (starts[1] + 5) * HOP  # up to there the first window is heard alone
    np.testing.assert_allclose(piece.audio["input"][:before], soft_limit(alone)[:before], atol=1e-4)

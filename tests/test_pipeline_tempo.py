"""Tempo: what the beat tracker hears in clicks and in drums of a known tempo, and partners found by it.

Slow: the tracker is compiled at its first use in a process.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli.app import app
from pipeline.pairing import read_pairs
from pipeline.synthesize.drum_patterns import DRUM_PATTERNS
from pipeline.synthesize.drums import record_drums
from pipeline.tempo import load_estimator
from shards import console
from shards.audio import Samples, encode_flac, write_wav
from shards.errors import MisuseError

RATE = 22_050


def clicks(tempo: float, seconds: float, pitch: float = 1000) -> Samples:
    """A short tone on each beat."""
    length = RATE // 30
    place = np.arange(length)
    click = np.sin(2 * np.pi * pitch * place / RATE) * np.exp(-place / (RATE / 200))
    track = np.zeros(round(seconds * RATE) + length, np.float32)
    for beat in range(int(seconds * tempo / 60)):
        start = round(beat * 60 / tempo * RATE)
        track[start : start + length] += 0.5 * click
    return track


def octaves_apart(one: float, other: float) -> float:
    apart = abs(math.log2(one / other)) % 1
    return min(apart, 1 - apart)


@pytest.mark.slow
@pytest.mark.parametrize("tempo", [63.0, 90.0, 117.5, 128.0, 174.0])
def test_the_tempo_of_clicks_is_heard_to_a_few_thousandths(tempo: float) -> None:
    heard = load_estimator()(clicks(tempo, 30), RATE)
    assert heard is not None
    assert octaves_apart(heard, tempo) < math.log2(1.003)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rock", "four_on_the_floor", "half_time", "shuffle"])
def test_the_tempo_of_drums_is_heard_up_to_octaves(name: str) -> None:
    (pattern,) = (pattern for pattern in DRUM_PATTERNS if pattern.name == name)
    tempo = sum(pattern.tempo) / 2
    drums = record_drums(np.random.default_rng(1), pattern, tempo, 30 * 24_000)
    heard = load_estimator()(drums, 24_000)
    assert heard is not None
    assert octaves_apart(heard, tempo) < math.log2(1.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "samples",
    [np.zeros(20 * RATE), clicks(120, 1), clicks(120, 20) * np.nan, np.zeros(0)],
    ids=["silence", "too little", "no numbers", "nothing"],
)
def test_where_no_beat_is_heard_there_is_no_tempo(samples: Samples) -> None:
    assert load_estimator()(samples.astype(np.float32), RATE) is None


def test_without_the_library_one_line_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "librosa.beat", None)
    with pytest.raises(MisuseError, match=r"librosa.* is not installed; install cascadence\[music\]"):
        load_estimator()


@pytest.mark.slow
def test_inputs_go_with_targets_of_their_tempo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "tracks", tmp_path / "pairs.jsonl"
    for tempo in (84, 100, 132):
        write_wav(root / f"clicks/{tempo}.wav", clicks(tempo, 20), RATE)
    for tempo in (50, 84, 132):
        write_wav(root / f"clacks/{tempo}.wav", clicks(tempo, 20, pitch=400), RATE)
    broken = root / "clacks/broken.flac"
    broken.write_bytes(_truncated_flac(tmp_path))
    arguments = ["pair", root, "--out", out, "--mode", "cross", "--inputs", "clicks", "--targets", "clacks"]
    arguments += ["--choose", "tempo", "--val-fraction", 0, "--seconds", 5, "--json"]
    with pytest.raises(SystemExit) as exited:
        console.run(app, "python -m pipeline", [str(argument) for argument in arguments])
    assert exited.value.code == 0
    (left_out,) = json.loads(capsys.readouterr().out)["left_out"]
    assert left_out["path"] == "clacks/broken.flac", "what only decoding shows is left out where tracks are decoded"
    assert {(Path(pair.input.path).stem, Path(pair.target.path).stem) for pair in read_pairs(out).pairs} == {
        ("84", "84"),
        ("100", "50"),
        ("132", "132"),
    }


def _truncated_flac(folder: Path) -> bytes:
    whole = encode_flac(clicks(100, 20) + np.float32(0.01), RATE)
    return whole[: len(whole) // 2]

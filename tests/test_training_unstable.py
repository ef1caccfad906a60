"""The three stages that exploded, for real: on music that the machine composes, beside the two stages that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from command import Outcome, run_pipeline, run_training
from small_training import FRAMES, events, make_batch

from shards.settings import find_config, load_settings
from training.config import CONFIGS, Config
from training.models.build import build_model

SETTINGS = {
    "model.cascade.layers": 1,
    "optimizer.learning_rate": 3e-3,  # 30 times the preset's
    "discriminator.learning_rate": 3e-3,  # 60 times
    "data.batch_size": 3,
    "train.epochs": 2,
    "train.audio_crop_seconds": "null",
    "train.log_steps": 1,
    "train.save_minutes": "null",
    "tracking.mlflow": "off",
}


@pytest.mark.parametrize(("name", "bounded"), [("unstable_3stage", False), ("masking", True)])
def test_levels_without_bounds_are_seen_before_the_first_step(name: str, bounded: bool) -> None:
    config = load_settings(Config, find_config(CONFIGS, name), ["model.cascade.layers=1"])
    torch.manual_seed(0)
    batch = make_batch(0, input=5.7, target=5.7)  # RMS of music's latents
    output = build_model(config.model, 128)(batch.input, batch.target)
    assert output.latents.shape == (2, 128, FRAMES)
    assert output.clamped.tolist() == [[[not bounded]]] * 2
    assert bool((output.scale > 2.5).all()) != bounded, "the seeds saw 7"


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pairs of drums and piano of a second each, four of them to validate, as MDCT latents."""
    folder = tmp_path_factory.mktemp("music")
    assert run_pipeline("synthesize", folder / "wav", "--pairs", 10, "--seconds", 4).code == 0
    pairs = folder / "pairs.jsonl"
    assert run_pipeline("pair", folder / "wav", "--out", pairs, "--mode", "suffix", "--seconds", 1).code == 0
    assert run_pipeline("encode", pairs, "--out", folder / "ds", "--codec", "mdct", "--local").code == 0
    return folder / "ds"


def train(music: Path, run_dir: Path, name: str) -> Outcome:
    sets: list[Any] = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    return run_training("launch", "--shards", music, "--run-dir", run_dir, "--local", "--config", name, *sets)


def alerts(run_dir: Path) -> set[str]:
    """The rules that turned red in a run."""
    return {event["rule"] for event in events(run_dir, "alert")}


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_three_stages_explode_at_a_rate_that_two_stages_stand(music: Path, tmp_path: Path) -> None:
    train(music, tmp_path / "three", "unstable_3stage")
    assert alerts(tmp_path / "three") >= {"gradient norm", "RMS scale"}
    assert run_training("health", tmp_path / "three", "--json").code == 1
    train(music, tmp_path / "two", "masking")
    assert "RMS scale" not in alerts(tmp_path / "two")
    norms = [[event["gradient/norm_max"] for event in events(tmp_path / run, "train")] for run in ("three", "two")]
    assert max(norms[0]) > 3 * max(norms[1])
    scaled = [events(tmp_path / run, "epoch")[-1]["train"]["level/clamped"] for run in ("three", "two")]
    assert scaled == [1.0, 0.0]

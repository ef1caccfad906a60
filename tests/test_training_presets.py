"""The presets: each loads, builds its model and learns a step; each says what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from make_data import make_dataset

from shards import open_dataset
from shards.codec import load_codec
from shards.settings import find_config, load_settings
from training.config import CONFIGS, Config
from training.runtime import Runtime
from training.state import TrainState, new_state
from training.step import Step

PRESETS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
SMALL = ("model.cascade.layers=1", "model.compositional.layers=1", "train.audio_crop_seconds=0.2", "train.compile=off")


@pytest.fixture(scope="module")
def dataset_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("presets") / "ds", {"train": (2,)}, frames=24)


def load(name: str, *overrides: str) -> Config:
    return load_settings(Config, find_config(CONFIGS, name), overrides)


def take_a_step(config: Config, dataset_path: Path) -> tuple[TrainState, dict[str, torch.Tensor]]:
    device = torch.device("cpu")
    state = new_state(config, 128, device)
    step = Step(config, load_codec("mdct"), state, Runtime(0, 1, device))
    return state, step.train([next(iter(open_dataset(dataset_path).loader("train", 2)))]).metrics


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_takes_a_step(name: str, dataset_path: Path) -> None:
    config = load(name, *SMALL)
    before = new_state(config, 128, torch.device("cpu")).model.state_dict()
    state, metrics = take_a_step(config, dataset_path)
    assert all(value.isfinite() for value in metrics.values()), metrics
    own = [loss for loss in type(config.losses).model_fields if f"loss/{loss}" in metrics]
    assert own, "its losses are told"
    assert all(config.losses.weight(loss) > 0 for loss in own)
    after = state.model.state_dict()
    trained = {name for name, parameter in state.model.named_parameters() if parameter.requires_grad}
    still = [key for key, tensor in before.items() if key in trained and torch.equal(tensor, after[key])]
    assert still == [], "every part of the model learns"


def test_each_preset_is_what_its_name_says() -> None:
    masking, pushed, composing = load("masking"), load("push_complementarity"), load("compositional")
    harder = masking.losses.model_copy(update={"mask_regularisation": 5 * masking.losses.mask_regularisation})
    assert pushed == masking.model_copy(update={"losses": harder})
    assert composing.model.agent == "compositional"
    unstable = load("unstable_3stage").model.cascade
    assert (unstable.stages, unstable.scale_clamp, unstable.residual_weights) == (3, None, (1.0, 1.0, 0.1))


@pytest.mark.parametrize("name", PRESETS)
def test_every_key_of_a_preset_is_explained(name: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    leaves = [line for line in text.splitlines() if not line.startswith("#") and not line.rstrip().endswith(":")]
    assert leaves
    assert [line for line in leaves if "  # " not in line] == []
    assert yaml.safe_load(text)

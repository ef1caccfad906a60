"""Settings: what a file and overrides amount to, and that every mistake is one line with the key and the mend."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Literal, Self

import pytest
import yaml
from pydantic import Field, ValidationError, model_validator

from shards.errors import ConfigError
from shards.settings import Settings, dump_yaml, find_config, known_keys, load_settings


class Layers(Settings):
    """A section inside a section."""

    count: int = Field(4, ge=1)
    kind: Literal["wide", "deep"] = "wide"


class Model(Settings):
    """A section."""

    layers: Layers = Layers()
    dropout: float = Field(0.1, ge=0, lt=1)
    name: str | None = None


class Train(Settings):
    """A section with fields that depend on each other."""

    epochs: int = 10
    warmup_epochs: int = 1
    betas: tuple[float, float] = (0.9, 0.99)
    resume: bool = False

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) is more than epochs; lower one, raise the other")
        return self


class Config(Settings):
    """The whole tree."""

    model: Model = Model()
    train: Train = Train()
    weights: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.model.layers.kind == "deep" and self.train.epochs < 5:
            raise ValueError("a deep model needs train.epochs of 5 or more")
        return self


def file(folder: Path, content: str) -> Path:
    path = folder / "my.yaml"
    path.write_text(textwrap.dedent(content))
    return path


def error_of(path: Path | None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(Config, path, overrides)
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in message
    return message


# What it amounts to


def test_without_a_word_the_defaults_hold() -> None:
    assert load_settings(Config, None) == Config()


def test_a_file_changes_what_it_names_and_overrides_win(tmp_path: Path) -> None:
    path = file(tmp_path, "model: {dropout: 0.5, layers: {count: 9}}\ntrain:\n  epochs: 20\n")
    config = load_settings(Config, path, ["train.epochs=30", "model.layers.kind=deep", "train.epochs=40"])
    assert (config.model.dropout, config.model.layers.count, config.model.layers.kind) == (0.5, 9, "deep")
    assert (config.train.epochs, config.train.warmup_epochs) == (40, 1)


@pytest.mark.parametrize("content", ["", "# nothing yet\n", "{}"])
def test_an_empty_file_changes_nothing(tmp_path: Path, content: str) -> None:
    assert load_settings(Config, file(tmp_path, content)) == Config()


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.epochs=3", "train", "epochs", 3),
        ("train.epochs= 3", "train", "epochs", 3),
        ("model.dropout=1e-3", "model", "dropout", 1e-3),
        ("model.dropout=0", "model", "dropout", 0.0),
        ("train.resume=true", "train", "resume", True),
        ("train.betas=[0.5, 0.6]", "train", "betas", (0.5, 0.6)),
        ("model.name=null", "model", "name", None),
        ("model.name=a=b", "model", "name", "a=b"),
        ("model.name=a: b: c", "model", "name", "a: b: c"),
        ('model.name="12"', "model", "name", "12"),
        ("model.name=/some/path.th", "model", "name", "/some/path.th"),
    ],
)
def test_an_override_is_read_as_yaml(override: str, section: str, key: str, value: object) -> None:
    assert getattr(getattr(load_settings(Config, None, [override]), section), key) == value


def test_a_table_takes_any_key() -> None:
    assert load_settings(Config, None, ["weights.b=2"]).weights == {"b": 2.0}
    assert load_settings(Config, None, ["weights={c: 3, d: 4}"]).weights == {"c": 3.0, "d": 4.0}


def test_settings_do_not_change_once_they_are_made() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().train.epochs = 3  # type: ignore[misc]


def test_what_is_written_reads_back_in_the_order_of_the_sections(tmp_path: Path) -> None:
    config = load_settings(Config, None, ["model.name=Käfer", "train.betas=[0.1, 0.2]", "model.dropout=1e-9"])
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(config), encoding="utf-8")
    assert load_settings(Config, path) == config
    assert list(yaml.safe_load(path.read_text(encoding="utf-8"))) == ["model", "train", "weights"]


def test_every_key_is_known_with_its_sections() -> None:
    keys = list(known_keys(Config))
    assert keys[:6] == [
        "model",
        "model.layers",
        "model.layers.count",
        "model.layers.kind",
        "model.dropout",
        "model.name",
    ]
    assert "train.epochs" in keys


# Mistakes


UNKNOWN = [
    ("train.epoch", "train.epoch", "train.epochs"),
    ("train.warmup", "train.warmup", "train.warmup_epochs"),
    ("trian.epochs", "trian", "train"),
    ("model.layer.count", "model.layer", "model.layers"),
    ("model.layers.counts", "model.layers.counts", "model.layers.count"),
    ("dropout", "dropout", "model.dropout"),
    ("model.betas", "model.betas", "train.betas"),
    ("Train.epochs", "Train", "train"),
]


@pytest.mark.parametrize(("key", "unknown", "nearest"), UNKNOWN)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, key: str, unknown: str, nearest: str) -> None:
    said = f"unknown key {unknown!r}; did you mean {nearest!r}?"
    assert error_of(None, f"{key}=3") == f"--set {key}=3: {said}"
    content: object = 3
    for part in reversed(key.split(".")):
        content = {part: content}
    path = file(tmp_path, yaml.safe_dump(content))
    assert error_of(path) == f"{path}: {said}"


def test_an_unknown_key_like_no_other_is_only_named() -> None:
    assert error_of(None, "zzz=1") == "--set zzz=1: unknown key 'zzz'"


@pytest.mark.parametrize("override", ["train.epochs", "=3", "", "train.epochs 3"])
def test_an_override_that_is_none_shows_how_one_looks(override: str) -> None:
    assert error_of(None, override) == f"--set {override}: write it as --set section.key=value"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=many", "train.epochs: Input should be a valid integer"),
        ("train.epochs=2.5", "train.epochs: Input should be a valid integer"),
        ("model.dropout=1", "model.dropout: Input should be less than 1 (given: 1)"),
        ("model.layers.count=0", "model.layers.count: Input should be greater than or equal to 1 (given: 0)"),
        ("model.layers.kind=tall", "model.layers.kind: Input should be 'wide' or 'deep' (given: 'tall')"),
        ("train=7", "train: Input should be a valid dictionary"),
        ("train.betas=[1]", "train.betas.1: Field required"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(override: str, message: str) -> None:
    assert error_of(None, override).startswith(f"configuration: {message}")


def test_a_wrong_value_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = file(tmp_path, "train: {epochs: soon}")
    assert error_of(path) == (
        f"{path}: train.epochs: Input should be a valid integer, unable to parse string as an integer (given: 'soon')"
    )


def test_fields_that_contradict_each_other_are_one_line() -> None:
    message = error_of(None, "train.warmup_epochs=11")
    assert message.startswith(
        "configuration: train: warmup_epochs (11) is more than epochs; lower one, raise the other"
    )


def test_sections_that_contradict_each_other_are_one_line(tmp_path: Path) -> None:
    path = file(tmp_path, "model: {layers: {kind: deep}}")
    assert error_of(path, "train.epochs=4") == (
        f"{path}: the sections together: a deep model needs train.epochs of 5 or more"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("train: [", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
        ("just words", "a mapping of sections, not str"),
        ("- train", "a mapping of sections, not list"),
        ("train:", "train: Input should be a valid dictionary"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, content: str, said: str) -> None:
    path = file(tmp_path, content)
    message = error_of(path)
    assert message.startswith(f"{path}: ")
    assert said in message


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    assert error_of(tmp_path / "absent.yaml") == f"{tmp_path / 'absent.yaml'}: there is no such configuration file"
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    assert error_of(path).startswith(f"{path}: not valid YAML")


# Names


def test_a_name_is_found_in_the_package_and_a_path_anywhere(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").touch()
    mine = file(tmp_path, "")
    assert find_config(tmp_path, "small") == tmp_path / "small.yaml"
    assert find_config(tmp_path / "other", str(mine)) == mine


def test_an_unknown_name_is_answered_with_the_choices(tmp_path: Path) -> None:
    for name in ("small", "large"):
        (tmp_path / f"{name}.yaml").touch()
    with pytest.raises(ConfigError) as caught:
        find_config(tmp_path, "smal")
    assert str(caught.value) == ("--config smal: neither a file nor one of: large, small; did you mean 'small'?")

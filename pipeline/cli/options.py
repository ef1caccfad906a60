"""The options that say what an encode job is to be: those of `encode`, and of `doctor` before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from pipeline.config import EncodeConfig

CodecName = Annotated[Literal["encodec", "mdct"] | None, typer.Option(help="encodec unless set.")]
CodecWeights = Annotated[Path | None, typer.Option(help="EnCodec's weights file.")]
AllowUnknownWeights = Annotated[
    bool, typer.Option("--codec-allow-unknown-weights", help="Take weights with another hash; it is recorded.")
]
Latents = Annotated[
    Literal["float16", "float32", "codes"] | None,
    typer.Option(help="float16 unless set; codes are EnCodec's at 6 kbit/s, 16x smaller."),
]
AudioSides = Annotated[
    Literal["none", "target", "both"] | None, typer.Option(help="Sides to store as FLAC, too; none unless set.")
]
Device = Annotated[
    Literal["auto", "cpu", "gpu"] | None, typer.Option(help="auto unless set: GPUs where the cluster has any.")
]
ConfigName = Annotated[str | None, typer.Option(help="A configuration's name or file.")]


def encode_settings(config: str | None, options: dict[str, Any], overrides: list[str] | None) -> EncodeConfig:
    """Build a job's configuration from a file, then options by their keys, then `--set`; None is not given.

    Raises `ConfigError` for what makes no sense.
    """
    from pipeline.config import CONFIGS, EncodeConfig
    from shards.settings import find_config, load_settings

    # As JSON, which is YAML, so that a path with ` #` in it or named `no` stays what it is.
    given = [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
    return load_settings(EncodeConfig, find_config(CONFIGS, config) if config else None, given + (overrides or []))


def codec_options(name: str | None, weights: Path | None, allow_unknown: bool) -> dict[str, Any]:
    """Give the options of the codec by their keys."""
    return {
        "codec.name": name,
        "codec.weights": str(weights) if weights else None,
        "codec.allow_unknown_weights": allow_unknown or None,
    }

"""Brings a checkpoint of the seeds into this project: its weights renamed, its arguments as a configuration."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shards.codec import codec_spec
from shards.codec.weights import WEIGHTS_SHA256
from shards.errors import CascadenceError, MisuseError
from shards.files import sha256_file
from shards.settings import validate
from training.checkpoint import DISCRIMINATOR, MODEL, CheckpointRecord, write_checkpoint
from training.config import Config
from training.losses.compat import Compat
from training.models.build import build_model
from training.models.discriminator import Discriminator
from training.progress import Progress
from training.seeds import settings_of, translate_weights
from training.weights import LoadReport, Weights, load_partially, not_finite

LOSSES = ("train_loss", "val_loss", "best_val_loss")
FRAMES = 1200
"""Of the windows of 16 s that the seeds trained on."""


@dataclass(frozen=True)
class Imported:
    """What an import brought: the epoch the file was saved in, the agent, and what became of each part's tensors."""

    epoch: int | None
    agent: str
    parts: dict[str, LoadReport]


def import_seed_checkpoint(
    path: Path, out: Path, compat: Compat = "seeds", codec_sha256: str = WEIGHTS_SHA256
) -> Imported:
    """Read the seeds' checkpoint `path` and write the checkpoint directory `out`, which must not exist.

    Tensors that the file lacks, or has in another shape, are initialised anew, always in the same way. Optimizers are
    not taken over: a training that goes on begins with fresh ones. Raises `CascadenceError` for a file that is none of
    the seeds' checkpoints, or that holds parameters that are not finite.
    """
    if not re.fullmatch("[0-9a-f]{64}", codec_sha256):
        raise MisuseError(f"--codec-sha256 {codec_sha256}: is no SHA-256; give 64 hex digits, as sha256sum prints them")
    if out.exists():
        raise MisuseError(f"{out}: exists already; choose another --out")
    content = _read(path)
    _require_finite(path, content)
    weights = translate_weights(_state(content, "model_state_dict"))
    judge = translate_weights(_state(content, "discriminator_state_dict"))
    codec = codec_spec("encodec").model_copy(update={"weights_sha256": codec_sha256})
    dim = weights[next(name for name in weights if name.endswith("projection.linear.bias"))].numel()
    if dim != codec.dim:
        raise CascadenceError(f"{path}: is of latents of {dim} channels; wants a model of EnCodec's {codec.dim}")
    config = _config(path, content, weights, judge, compat)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        model = build_model(config.model, dim, compat)
        discriminator = Discriminator(config.discriminator, dim) if judge or config.losses.gan > 0 else None
    reports = {MODEL: load_partially(model, weights)}
    parts: dict[str, Weights] = {MODEL: model.state_dict()}
    if discriminator is not None:
        reports[DISCRIMINATOR] = load_partially(discriminator, judge)
        parts[DISCRIMINATOR] = discriminator.state_dict()
    epoch = _epoch(content)
    origin = {"file": path.name, "sha256": sha256_file(path), "epoch": epoch}
    losses = {name: float(content[name]) for name in LOSSES if _number(content, name)}
    record = CheckpointRecord(
        codec=codec,
        dataset_fingerprint=None,
        frames=FRAMES,
        progress=Progress().as_json(),
        metrics={},
        origin=origin | losses,
    )
    write_checkpoint(out, parts, config, record)
    return Imported(epoch, config.model.agent, reports)


def _read(path: Path) -> dict[str, Any]:
    """Read the file without unpickling anything but tensors and plain data."""
    if not path.is_file():
        raise CascadenceError(f"{path}: there is no such file; give a checkpoint of the seeds, such as best_model.pt")
    wanted = "wants what the seeds saved: a torch file with `model_state_dict`"
    try:
        # Some of their scripts saved `args` as the parser gave them; the class holds plain values.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what the file might be: the error says what it is
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = re.search(r"GLOBAL ([\w.]+)", str(error))
        unsafe = f"holds {what[1]}, which is no plain data and is not loaded" if what else "is no torch checkpoint"
        raise CascadenceError(f"{path}: {unsafe}; {wanted}") from None
    except Exception as error:  # whatever a damaged file makes of torch's reader: errors of index, key, structure, ...
        first = str(error).splitlines()[0] if isinstance(error, RuntimeError | OSError) else type(error).__name__
        raise CascadenceError(f"{path}: can't be read as a torch checkpoint ({first}); {wanted}") from None
    if not isinstance(content, dict) or not _state(content, "model_state_dict"):
        keys = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise CascadenceError(f"{path}: no checkpoint of the seeds (found: {keys}); {wanted}")
    names = _state(content, "model_state_dict")
    if not all(any(part in name for name in names) for part in ("output_proj.bias", "transformer.layers.")):
        raise CascadenceError(f"{path}: its `model_state_dict` is of another model; {wanted} of a cascade")
    return content


def _state(content: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    found = content.get(name)
    if not isinstance(found, Mapping):
        return {}
    return {str(key): tensor for key, tensor in found.items() if isinstance(tensor, Tensor)}


def _arguments(content: Mapping[str, Any]) -> dict[str, Any]:
    found = content.get("args")
    found = vars(found) if isinstance(found, argparse.Namespace) else found
    return dict(found) if isinstance(found, Mapping) else {}


def _epoch(content: Mapping[str, Any]) -> int | None:
    epoch = content.get("epoch")
    return epoch if isinstance(epoch, int) else None


def _config(path: Path, content: Mapping[str, Any], weights: Weights, judge: Weights, compat: Compat) -> Config:
    tree: dict[str, Any] = {"compat": compat}
    settings = settings_of(_arguments(content), weights)
    widths = [tensor.shape[0] for name, tensor in judge.items() if re.fullmatch(r"convolutions\.\d+\.weight", name)]
    if widths:
        settings["discriminator.channels"] = widths
    for key, value in settings.items():
        *sections, last = key.split(".")
        section = tree
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    return validate(Config, tree, f"{path}: args")


def _number(content: Mapping[str, Any], name: str) -> bool:
    value = content.get(name)
    return isinstance(value, int | float) and abs(value) < float("inf")


def _require_finite(path: Path, content: Mapping[str, Any]) -> None:
    bad = list(_bad_parameters(content))
    if not bad:
        return
    epoch = _epoch(content)
    others = f" and {len(bad) - 1} more are" if len(bad) > 1 else " is"
    when = f", at epoch {epoch}" if epoch is not None else ""
    raise CascadenceError(f"{path}: {bad[0]}{others} not finite{when}; {_way_back(path, epoch)}")


def _bad_parameters(content: Mapping[str, Any]) -> Iterator[str]:
    for part in ("model_state_dict", "discriminator_state_dict"):
        yield from not_finite(_state(content, part))


def _way_back(path: Path, epoch: int | None) -> str:
    """Name the newest sound checkpoint from before `epoch` that lies beside this one."""
    if epoch is None:
        return "import an earlier one"
    older: list[tuple[int, str]] = []
    for sibling in path.parent.glob(f"*{path.suffix}"):
        try:
            content = _read(sibling)
        except CascadenceError:
            continue
        saved = _epoch(content)
        if saved is not None and saved < epoch and not any(_bad_parameters(content)):
            older.append((saved, sibling.name))
    if not older:
        return "go back to an epoch before it: none that is sound lies beside this file"
    saved, name = max(older)
    return f"go back to epoch {saved}: import {name}"

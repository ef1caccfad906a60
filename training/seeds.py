"""What the seeds called things: their state dicts' keys and their arguments, in this project's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_RENAMES = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^module\.", ""),  # what DistributedDataParallel puts in front
        (r"^cascade_stages\.", "stages."),
        (r"^creative_agent\.mask_generator\.", "agent."),
        (r"^creative_agent\.discriminator\.classifier\.2\.", "agent.style_discriminator.real."),
        (r"^creative_agent\.discriminator\.style_matcher\.", "agent.style_discriminator.style."),
        (r"^creative_agent\.discriminator\.", "agent.style_discriminator."),
        (r"^creative_agent\.", "agent."),
        (r"\b(input|target)_analyzer\.", r"\1_analyser."),
        (r"\b(input|target)_mask_generator\.", r"\1_head."),
        (r"\b(rhythm|harmony|timbre)_(norm|skip)\.", r"ears.\1.\2."),
        (r"\b(rhythm|harmony|timbre)_conv1\.", r"ears.\1.first."),
        (r"\b(rhythm|harmony|timbre)_conv2\.", r"ears.\1.second."),
        (r"\bcomponent_selector\.", "selector."),
        (r"\bcomposer\.component_projection\.", "composer.expand."),
        (r"\bcomposer\.output_projection\.", "composer.contract."),
        (r"\bcomposer\.composer\.layers\.", "composer.layers."),
        (r"\btransformer\.layers\.", "layers."),
        (r"\.self_attn\.in_proj_", ".qkv."),
        (r"\.self_attn\.out_proj\.", ".projection."),
        (r"\blayers\.(\d+)\.linear1\.", r"layers.\1.expand."),
        (r"\blayers\.(\d+)\.linear2\.", r"layers.\1.contract."),
        (r"\blayers\.(\d+)\.norm1\.", r"layers.\1.attention_norm."),
        (r"\blayers\.(\d+)\.norm2\.", r"layers.\1.feedforward_norm."),
        (r"\bpost_norm\.", "projection.norm."),
        (r"\boutput_proj\.weight_orig$", "projection.linear.parametrizations.weight.original"),
        (r"\boutput_proj\.weight_(u|v)$", r"projection.linear.parametrizations.weight.0._\1"),
        (r"\boutput_proj\.", "projection.linear."),
        (r"^conv_layers\.", "convolutions."),
    )
]
_RECOMPUTED = re.compile(r"\.(pos_encoding|pos_encoder)\.pe$")

_ARGUMENTS = {
    "num_layers": "model.cascade.layers",
    "nhead": "model.cascade.heads",
    "dropout": "model.cascade.dropout",
    "anti_cheating": "model.cascade.anti_cheating",
    "mask_type": "model.fixed_masks.kind",
    "mask_temporal_segment": "model.fixed_masks.segment",
    "mask_freq_split": "model.fixed_masks.split",
    "mask_channel_keep": "model.fixed_masks.keep",
    "mask_energy_threshold": "model.fixed_masks.quantile",
    "loss_weight_input": "losses.rms_input",
    "loss_weight_target": "losses.rms_target",
    "loss_weight_spectral": "losses.spectral",
    "loss_weight_mel": "losses.mel",
    "corr_weight": "losses.modulation_correlation",
    "gan_weight": "losses.gan",
    "disc_lr": "discriminator.learning_rate",
    "lr": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "batch_size": "data.batch_size",
    "epochs": "train.epochs",
    "seed": "train.seed",
    "save_every": "train.checkpoint_epochs",
}


def translate(key: str) -> str | None:
    """Give a key of the seeds' state dicts this project's name; None for a table that is computed anew."""
    if _RECOMPUTED.search(key):
        return None
    for pattern, name in _RENAMES:
        key = pattern.sub(name, key)
    return key


def translate_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a whole state dict, less the tables that are computed anew."""
    return {name: tensor for key, tensor in weights.items() if (name := translate(key)) is not None}


def settings_of(arguments: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read a configuration's keys, dotted, from the seeds' arguments and from the renamed `weights`.

    Where both speak of one thing, the weights are right: they are what will be loaded. An agent that the arguments
    name and the weights lack altogether is one that has to be made anew.
    """
    found = {ours: arguments[theirs] for theirs, ours in _ARGUMENTS.items() if arguments.get(theirs) is not None}
    stages = _count(weights, r"^stages\.(\d+)\.")
    found["model.cascade.stages"] = max(2, stages) if stages else 1
    found["model.cascade.layers"] = _count(weights, r"^(?:stages\.\d+\.)?layers\.(\d+)\.")
    found["model.cascade.spectral_norm"] = any(".parametrizations." in name for name in weights)
    found["model.agent"] = _agent(weights, arguments if stages else {})
    regularisation, balance = arguments.get("mask_reg_weight"), arguments.get("balance_loss_weight")
    if found["model.agent"] == "compositional":
        # One weight for the agent's novelty and its balance penalty together.
        found |= {} if regularisation is None else {"losses.novelty": regularisation, "losses.balance": regularisation}
    else:
        found |= {} if regularisation is None else {"losses.mask_regularisation": regularisation}
        found |= {} if balance is None else {"losses.balance": balance}
    return found


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    """Count numbered parts by the highest number: one that is missing in between is still one of them."""
    return max((int(match[1]) + 1 for name in weights if (match := re.match(pattern, name))), default=0)


def _agent(weights: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> str:
    parts = {name.split(".")[1] for name in weights if name.startswith("agent.")}
    if parts:
        return "compositional" if parts & {"composer", "selector", "input_extractor"} else "masking"
    if arguments.get("use_compositional_agent"):
        return "compositional"
    return "masking" if arguments.get("use_creative_agent") else "none"

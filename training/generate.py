"""A trained model makes music: latents of two sources in, levelled audio and what the agent decided out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shards.audio import Samples
from shards.codec import Codec
from shards.errors import CascadenceError
from shards.schema import SIDES
from training.data import require_finite
from training.levels import levels, matching_gain, soft_limit
from training.measures.music import Ears
from training.measures.pair import listen, measure_pair
from training.models.cascade import AgentOutput, ModelOutput
from training.models.compositional_agent import COMPONENTS, CompositionalOutput
from training.notch import notch_outliers
from training.sources import SourcePair
from training.windows import Cut, join_windows

BATCH_SIZE = 4
"""Windows that are made at a time."""


@dataclass(frozen=True)
class Piece:
    """A generated piece: mono audio [n] of sources and output, its metrics, and what the agent decided.

    That is, where there is an agent of the kind: the masks [D, T] of input and target, or the weights [T] of the
    components, by name. `labels` gives people a word for each source.
    """

    name: str
    audio: dict[str, Samples]
    metrics: dict[str, Any]
    masks: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    components: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@torch.no_grad()
def generate(
    model: nn.Module,
    codec: Codec,
    pair: SourcePair,
    sources: Mapping[str, Samples] | None = None,
    ears: Ears | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    notch: bool = False,
) -> Piece:
    """Make one piece: window by window, joined, brought to the sources' level (at most 3x) and soft-limited.

    `sources` are those of `decode_sources`, where somebody has them. What is measured is the output as the model made
    it, before it is changed, and its music with `ears` only. With `notch`, what rings in it is then attenuated
    (`training.notch`), and after that its level is set. Raises `DatasetError` where latents are not finite, and
    `CascadenceError` where the output is not.
    """
    device = next(model.parameters()).device
    latents, agent = _make_windows(model, codec, pair, device, batch_size)
    heard = {**(sources or decode_sources(codec, pair, device, batch_size))}
    heard["output"] = _decode(codec, pair, latents["output"])
    if not np.isfinite(heard["output"]).all():
        raise CascadenceError(f"{pair.name}: the output is not finite; use an earlier checkpoint")
    rate = codec.spec.sample_rate
    whole = {name: join_windows(torch.cat(batches).float(), pair.cut)[None] for name, batches in latents.items()}
    made, *beside = (listen(whole[name], heard[name], rate, ears) for name in ("output", *SIDES))
    metrics = measure_pair(made, beside[0], beside[1], rate, ears)
    if agent is not None:
        told = {name: float(value) for name, value in agent.metrics().items()}
        metrics |= {name: value for name, value in told.items() if np.isfinite(value)}
    if notch:
        heard["output"], metrics["notch_db"] = notch_outliers(heard["output"], rate)
    metrics["gain"] = matching_gain(heard["output"], heard["input"], heard["target"])
    heard["output"] = heard["output"] * np.float32(metrics["gain"])
    audio = {name: soft_limit(samples) for name, samples in heard.items()}
    return Piece(pair.name, audio, levels(audio) | metrics, *_decisions(agent), pair.labels)


@torch.no_grad()
def decode_sources(
    codec: Codec, pair: SourcePair, device: torch.device, batch_size: int = BATCH_SIZE
) -> dict[str, Samples]:
    """Decode both sources of a pair, `input` and `target`, as they are: mono audio [n]."""
    heard: dict[str, Samples] = {}
    for side in SIDES:
        batches = torch.split(getattr(pair, side), batch_size)
        heard[side] = _decode(codec, pair, [codec.latents(stored.to(device)) for stored in batches])
    return heard


def join_agents(agents: Sequence[AgentOutput], cut: Cut) -> AgentOutput:
    """Join what an agent decided about batches of windows to what it decided about the whole: a batch of one."""
    every = [{one.name: getattr(agent, one.name) for one in fields(agent)} for agent in agents]
    joined = {name: _joined([values[name] for values in every], cut) for name in every[0]}
    if isinstance(agents[0], CompositionalOutput):  # what it tells of windows and not of their frames
        energies, replaced = (torch.cat([values[name] for values in every]) for name in ("energies", "replaced"))
        joined["energies"] = energies.square().mean(0, keepdim=True).sqrt()
        joined["replaced"] = replaced.sum(0, keepdim=True)
    return replace(agents[0], **joined)


def _joined(batches: Sequence[Any], cut: Cut) -> Any:
    """Join tensors [W, ., F] of batches of windows to one [1, ., T], and tuples of such; the rest stays as it is."""
    if isinstance(batches[0], tuple):
        return tuple(_joined(one, cut) for one in zip(*batches, strict=True))
    if isinstance(batches[0], Tensor) and batches[0].ndim == 3:
        return join_windows(torch.cat(list(batches)), cut)[None]
    return batches[0]


def _make_windows(
    model: nn.Module, codec: Codec, pair: SourcePair, device: torch.device, batch_size: int
) -> tuple[dict[str, list[Tensor]], AgentOutput | None]:
    """Make the output's windows: batches of latents [<= batch_size, D, F] of it and of its sources.

    And what the agent decided, joined.
    """
    latents: dict[str, list[Tensor]] = {"input": [], "target": [], "output": []}
    agents: list[AgentOutput] = []
    for stored in zip(torch.split(pair.input, batch_size), torch.split(pair.target, batch_size), strict=True):
        for side, batch in zip(SIDES, stored, strict=True):
            latents[side].append(codec.latents(batch.to(device)))
            require_finite(side, [pair.name] * len(batch), latents[side][-1])
        output: ModelOutput = model(latents["input"][-1], latents["target"][-1])
        latents["output"].append(output.latents)
        if output.agent is not None:
            agents.append(output.agent)
    return latents, join_agents(agents, pair.cut) if agents else None


def _decode(codec: Codec, pair: SourcePair, batches: Sequence[Tensor]) -> Samples:
    """Decode windows as in training, each on its own, and join their sound."""
    windows = torch.cat([codec.decode(latents.float())[:, 0].cpu() for latents in batches])
    samples: Samples = join_windows(windows, pair.cut.times(codec.spec.hop))[: pair.samples].numpy()
    return samples


def _decisions(agent: AgentOutput | None) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """What an agent decided about one pair: masks [D, T], and weights [T] of components."""
    if agent is None:
        return {}, {}
    if isinstance(agent, CompositionalOutput):
        weights = agent.weights[0].float().cpu().numpy()
        return {}, dict(zip(COMPONENTS, weights, strict=True))
    return {side: getattr(agent, f"{side}_mask")[0].float().cpu().numpy() for side in SIDES}, {}

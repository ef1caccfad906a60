"""The compositional agent: takes both sources apart into rhythm, harmony and timbre, and composes a new pattern."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from shards.settings import Settings
from training.losses.compat import Compat
from training.losses.components import component_balance, component_entropy, component_evenness, novelty
from training.models.aspects import BANDS, aspect_energies, harmony_aspect, rhythm_aspect, timbre_aspect
from training.models.blocks import SinusoidalPositions, TransformerLayer, local_level, match_rms

KERNELS = {"rhythm": (3, 5), "harmony": (7, 9), "timbre": (15, 21)}
"""Widths, in frames, of the two convolutions that hear a component."""
ASPECTS = {"rhythm": rhythm_aspect, "harmony": harmony_aspect, "timbre": timbre_aspect}
"""What a component is told where ears are focused."""
COMPONENTS = tuple(f"{source}_{component}" for source in ("input", "target") for component in KERNELS)
LIMIT = 50.0
"""Bound of the composed latents; EnCodec's lie within about 30."""


class CompositionalAgentConfig(Settings):
    """The compositional agent's section."""

    ears: Literal["free", "focused"] = Field(
        "free",
        description="free: each hears everything; focused: rhythm hears loudness, harmony hears no loudness, timbre "
        "hears no time",
    )
    units: Literal["absolute", "components"] = Field(
        "absolute",
        description="components: the weights share out the pattern's energy, each component's where it is loud; the "
        "pattern takes the input's RMS with its place",
    )
    channels: int = Field(64, ge=1, description="of each component")
    selector: int = Field(256, ge=1, description="width of the selector")
    width: int = Field(512, ge=2, multiple_of=2, description="of the composer")
    layers: int = Field(4, ge=1)
    heads: int = Field(8, ge=1)
    feedforward: int = Field(4, ge=1, description="width of the feed-forward path, in widths of the composer")
    dropout: float = Field(0.1, ge=0, lt=1)
    attention_dropout: float = Field(0.0, ge=0, lt=1, description="the seeds had 0.1, on a slow path")

    @model_validator(mode="after")
    def _check(self) -> CompositionalAgentConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


@dataclass(frozen=True)
class CompositionalOutput:
    """What was composed, of what: patterns [B, D, T], logits and weights [B, 6, T], energies [B, 6] by `COMPONENTS`.

    `input` is the composed pattern, which takes the input's place in the cascade; `target` is the target as it came.
    `replaced` [B] counts its values that were no numbers.
    """

    LOSSES: ClassVar[tuple[str, ...]] = ("novelty", "balance", "evenness")

    input: Tensor
    target: Tensor
    sources: tuple[Tensor, Tensor]
    logits: Tensor
    weights: Tensor
    energies: Tensor
    replaced: Tensor
    compat: Compat

    @property
    def pattern(self) -> Tensor:
        """What was composed, [B, D, T]."""
        return self.input

    def pair(self, place: int) -> CompositionalOutput:
        """What was composed of one pair of the batch."""
        one = slice(place, place + 1)
        batched = ("input", "target", "logits", "weights", "energies", "replaced")
        sources = self.sources[0][one], self.sources[1][one]
        return replace(self, sources=sources, **{name: getattr(self, name)[one] for name in batched})

    def loss(self, name: str) -> Tensor:
        """One of `LOSSES`, a scalar."""
        if name == "novelty":
            return novelty(self.input, *self.sources, self.compat)
        if name == "evenness":
            return component_evenness(self.weights)
        assert name == "balance"
        return component_balance(self.logits if self.compat == "seeds" else self.weights)

    @property
    def losses(self) -> dict[str, Tensor]:
        """All of its losses, by name."""
        return {name: self.loss(name) for name in self.LOSSES}

    def metrics(self) -> Mapping[str, Tensor]:
        """Scalars that tell how the agent does: novelty, replaced values, mean weight and RMS of each component."""
        weights, energies = self.weights.mean((0, 2)), self.energies.square().mean(0).sqrt()
        return {
            "novelty": self.loss("novelty"),
            "replaced": self.replaced.sum(),
            "component_entropy": component_entropy(self.weights),
            **{f"{name}_weight": weights[place] for place, name in enumerate(COMPONENTS)},
            **{f"{name}_energy": energies[place] for place, name in enumerate(COMPONENTS)},
        }


class CompositionalAgent(nn.Module):
    """An extractor a source, a selector that weighs the six components at each frame, and a composer."""

    def __init__(self, config: CompositionalAgentConfig, dim: int, compat: Compat = "none") -> None:
        super().__init__()
        self._compat: Compat = compat
        self._units = config.units
        self.input_extractor = Extractor(config, dim)
        self.target_extractor = Extractor(config, dim)
        self.selector = nn.Sequential(
            nn.Conv1d(len(COMPONENTS) * config.channels, config.selector, 1),
            nn.LeakyReLU(0.2),
            nn.Conv1d(config.selector, len(COMPONENTS), 1),
        )
        self.composer = Composer(config, dim)

    def forward(self, input_latents: Tensor, target_latents: Tensor) -> CompositionalOutput:
        """Compose a pattern from two sources [B, D, T]."""
        heard = [*self.input_extractor(input_latents), *self.target_extractor(target_latents)]
        components = torch.stack(heard, 1)  # [B, 6, channels, T]
        logits = self.selector(components.flatten(1, 2)).float()
        weights = torch.softmax(logits, 1)
        selected = (components * weights[:, :, None]).flatten(1, 2)
        # The seeds clamped to 100 and then to 50, which is 50.
        composed = self.composer(selected).float().clamp(-LIMIT, LIMIT)
        unusable = composed.isnan()
        composed = composed.masked_fill(unusable, 0.0)
        if self._units == "components":
            energies = torch.cat([aspect_energies(source) for source in (input_latents, target_latents)], 1)
            composed = match_rms(_share_out(composed, (energies * weights[:, :, None]).sum(1)), input_latents)
        return CompositionalOutput(
            input=composed,
            target=target_latents,
            sources=(input_latents, target_latents),
            logits=logits,
            weights=weights,
            energies=components.detach().float().square().mean((2, 3)).sqrt(),
            replaced=unusable.sum((1, 2)).float(),
            compat=self._compat,
        )


def _share_out(composed: Tensor, energy: Tensor) -> Tensor:
    """Bring a pattern to the energy that was shared out, both [B, D, T]: channels by tendency, frames without fail.

    So no gain of the composer can undo what a weight says of rhythm. A frame counts with those around it: an attack may
    be sharper than the loudness of the source that it comes from.
    """
    pattern = composed * energy.sqrt()
    return pattern * energy.mean(1, keepdim=True).sqrt() / local_level(pattern.square().mean(1, keepdim=True))


class Extractor(nn.Module):
    """Hears rhythm, harmony and timbre of one source, each by convolutions of its own width."""

    def __init__(self, config: CompositionalAgentConfig, dim: int) -> None:
        super().__init__()
        self._focused = config.ears == "focused"
        heard = {name: BANDS if self._focused and name == "rhythm" else dim for name in KERNELS}
        self.ears = nn.ModuleDict(
            {name: Ear(heard[name], config.channels, *kernels) for name, kernels in KERNELS.items()}
        )

    def forward(self, latents: Tensor) -> list[Tensor]:
        """Take [B, D, T] apart into one [B, channels, T] a component."""
        return [ear(ASPECTS[name](latents) if self._focused else latents) for name, ear in self.ears.items()]


class Ear(nn.Module):
    """Two convolutions beside a skip, normalised over the batch."""

    def __init__(self, dim: int, channels: int, first: int, second: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(dim, 2 * channels, first, padding=first // 2)
        self.second = nn.Conv1d(2 * channels, channels, second, padding=second // 2)
        self.skip = nn.Conv1d(dim, channels, 1)
        self.norm = nn.BatchNorm1d(channels)
        # The normalisation takes away whatever is added to all frames alike: this bias can't learn.
        assert self.skip.bias is not None
        self.skip.bias.requires_grad_(False)

    def forward(self, latents: Tensor) -> Tensor:
        """Map [B, D, T] to [B, channels, T]."""
        heard = F.leaky_relu(self.second(F.leaky_relu(self.first(latents), 0.2)), 0.2)
        normed: Tensor = self.norm(heard + self.skip(latents))
        return normed


class Composer(nn.Module):
    """A transformer over the frames of the selected components."""

    def __init__(self, config: CompositionalAgentConfig, dim: int) -> None:
        super().__init__()
        width = config.width
        self.expand = nn.Linear(len(COMPONENTS) * config.channels, width)
        self.positions = SinusoidalPositions(width)
        self.layers = nn.ModuleList(
            TransformerLayer(width, config.heads, config.feedforward * width, config.dropout, config.attention_dropout)
            for _ in range(config.layers)
        )
        self.contract = nn.Sequential(
            nn.Linear(width, width // 2), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(width // 2, dim)
        )

    def forward(self, selected: Tensor) -> Tensor:
        """Map [B, 6 * channels, T] to [B, D, T]."""
        x = self.positions(self.expand(selected.transpose(1, 2)))
        for layer in self.layers:
            x = layer(x)
        composed: Tensor = self.contract(x)
        return composed.transpose(1, 2)

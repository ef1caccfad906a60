"""Pairs decoded and measured, batch by batch: what the model makes of them beside the baselines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from shards.audio import Samples, rms
from shards.codec import Codec
from shards.errors import CascadenceError
from training.evaluation.baselines import COPY_INPUT, COPY_TARGET, Made, make_baselines
from training.evaluation.pairs import Pair
from training.measures.masks import MaskVariance
from training.measures.music import SILENCE, Ears
from training.measures.pair import Sound, listen, measure_pair
from training.models.cascade import ModelOutput
from training.models.masking_agent import MaskingOutput

MODEL = "model"
"""The column of what the model made; the others are those of the baselines."""
Metrics = dict[str, float]


@dataclass(frozen=True)
class Measured:
    """One pair: the keys of its samples and the files of its sources, by side, and its metrics by column.

    `silent` are the sides in which nothing is heard.
    """

    keys: dict[str, str]
    files: dict[str, str]
    silent: tuple[str, ...]
    columns: dict[str, Metrics]


@dataclass(frozen=True)
class Walk:
    """Measures pairs; `masks` adds up those of each column, since their variance is that of all pairs."""

    model: nn.Module
    codec: Codec
    discriminator: nn.Module | None
    ears: Ears
    masks: dict[str, MaskVariance] = field(default_factory=lambda: defaultdict(MaskVariance))

    @torch.no_grad()
    def measure(self, pairs: Sequence[Pair]) -> list[Measured]:
        """Measure a batch of pairs of one length. Raises `CascadenceError` where an output is not finite."""
        source, goal = torch.cat([pair.source for pair in pairs]), torch.cat([pair.goal for pair in pairs])
        output: ModelOutput = self.model(source, goal)
        for pair, finite in zip(pairs, output.latents.isfinite().all(2).all(1).tolist(), strict=True):
            if not finite:
                raise CascadenceError(f"{pair.keys['input']}: the output is not finite; use an earlier checkpoint")
        baselines = make_baselines(source, goal, [pair.seed for pair in pairs])
        made = {MODEL: Made(output.latents.float(), output.agent), **baselines}
        self._add_masks(made)
        audio = {column: self.codec.decode(one.latents)[:, 0].cpu().numpy() for column, one in made.items()}
        opinions = self._discriminate(made)
        return [
            self._measure_one(
                pair,
                {column: _pair_of(one, place) for column, one in made.items()},
                {column: samples[place] for column, samples in audio.items()},
                {column: opinion[place] for column, opinion in opinions.items()},
            )
            for place, pair in enumerate(pairs)
        ]

    def _measure_one(
        self,
        pair: Pair,
        made: Mapping[str, Made],
        audio: Mapping[str, Samples],
        opinions: Mapping[str, Metrics],
    ) -> Measured:
        rate = self.codec.spec.sample_rate
        sounds = {column: listen(one.latents, audio[column], rate, self.ears) for column, one in made.items()}
        source, goal = sounds[COPY_INPUT], sounds[COPY_TARGET]
        columns = {column: measure_pair(sound, source, goal, rate, self.ears) for column, sound in sounds.items()}
        for column, one in made.items():
            if one.agent is not None:
                columns[column] |= {name: float(value) for name, value in one.agent.metrics().items()}
            columns[column] |= opinions.get(column, {})
        sides = {"input": source, "target": goal}
        silent = tuple(side for side, sound in sides.items() if _is_silent(sound))
        return Measured(pair.keys, pair.files, silent, columns)

    def _add_masks(self, made: Mapping[str, Made]) -> None:
        for column, one in made.items():
            if isinstance(one.agent, MaskingOutput):
                self.masks[column].add(one.agent.input_mask, one.agent.target_mask)

    def _discriminate(self, made: Mapping[str, Made]) -> dict[str, list[Metrics]]:
        """What the discriminator takes each output for, and the targets.

        In training real music is the targets rolled by one, so that it can't learn the pair; over all pairs these are
        the targets.
        """
        if self.discriminator is None:
            return {}
        logits = {column: self.discriminator(one.latents)[:, 0].tolist() for column, one in made.items()}
        found = {
            column: [{"discriminator_fake_accuracy": float(logit < 0)} for logit in of_pairs]
            for column, of_pairs in logits.items()
        }
        for opinion, logit in zip(found[MODEL], logits[COPY_TARGET], strict=True):
            opinion["discriminator_real_accuracy"] = float(logit > 0)
        return found


def _pair_of(made: Made, place: int) -> Made:
    agent = None if made.agent is None else made.agent.pair(place)
    return Made(made.latents[place : place + 1], agent)


def _is_silent(sound: Sound) -> bool:
    return rms(sound.audio) < SILENCE

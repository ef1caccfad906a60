"""One step: a batch becomes losses, and the losses an update. No files, no Ray, no waiting for the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function

from shards.codec import Codec
from shards.order import derive
from shards.reader import Batch
from training.config import Config
from training.data import require_finite
from training.losses import AudioCrops, LossInputs, LossReport, compute_losses, discriminator_loss, roll_targets
from training.losses.modulation import amplitude_envelope, envelope_correlation, segments_for
from training.metrics import Metrics
from training.models.blocks import rms
from training.models.cascade import ModelOutput
from training.optim import Parts, clip_gradients, gradient_norms, norms_by_weight, parts_of, step_if_finite
from training.runtime import Runtime
from training.schedule import rate_factor
from training.state import Adversary, TrainState

_CROP, _NOISE = 1, 2


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed the step's random numbers (dropout, noise) from its place alone, so that a resume repeats them."""
    torch.manual_seed(derive(seed, step, rank, _NOISE))


def crop_start(seed: int, step: int, frames: int, crop: int) -> int:
    """Draw the first frame of a step's crop, uniformly and equal on all ranks."""
    return derive(seed, step, _CROP) % (frames - crop + 1)


@dataclass(frozen=True)
class StepResult:
    """Scalars that stay on the device, and whether the step counted (1) or was skipped as not finite (0)."""

    metrics: Metrics
    counted: Tensor


@dataclass(frozen=True)
class _Game:
    """What the discriminator would learn from a step: its weights, whose gradients wait, their norms, and scalars."""

    parts: Parts
    norms: Metrics
    metrics: Metrics


@dataclass(frozen=True)
class _Judged:
    """A batch on its way through the model: what was made of which sources, and the losses."""

    output: ModelOutput
    goal: Tensor
    report: LossReport
    crops: AudioCrops | None


class Step:
    """The training step and its counterpart for evaluation, on a state that it updates.

    A loss or gradient that is not finite, of the model or of its adversary, makes the step a skip: nothing is updated.
    Gradients are averaged over the ranks before anybody looks at them, so all ranks skip alike.
    """

    def __init__(self, config: Config, codec: Codec, state: TrainState, runtime: Runtime, total_steps: int = 1) -> None:
        self._config, self._codec, self._state, self._runtime = config, codec, state, runtime
        self._total_steps = total_steps
        if config.train.compiles(runtime.device.type):
            for part in state.model.compiled_parts():
                part.compile()
        self._parts = parts_of(state.model)
        self._model = runtime.wrap(state.model)
        self._judge = runtime.wrap(state.adversary.discriminator) if state.adversary is not None else None
        self._buffers = _saved_buffers(state.model)
        self._skipped = torch.zeros((), device=runtime.device)

    def train(self, batches: Sequence[Batch]) -> StepResult:
        """Update the model, and its adversary, by one step over `batches`, whose gradients are averaged."""
        state, config = self._state, self._config
        seed_step(config.train.seed, state.progress.step, self._runtime.rank)
        state.model.schedule(state.progress.step)
        self._model.train()
        factor = rate_factor(config.schedule, state.progress, self._total_steps)
        state.optimizer.zero_grad(set_to_none=True)
        judged: list[_Judged] = []
        before = [buffer.clone() for buffer in self._buffers]
        for place, batch in enumerate(batches):
            with self._synchronised(self._model, last=place == len(batches) - 1):
                judged.append(self._forward(batch))
                with record_function("step/backward"):
                    _backward(judged[-1].report.total, len(batches))
        game = None
        if state.adversary is not None and state.progress.step % config.discriminator.every == 0:
            game = self._play(state.adversary, judged)
        with record_function("step/update"):
            norms = gradient_norms(self._parts)
            finite = norms["norm"].isfinite()
            counted = (finite if game is None else finite & game.norms["norm"].isfinite()).float()
            self._update(counted, norms, game, factor)
            for buffer, old in zip(self._buffers, before, strict=True):
                buffer.copy_(torch.where(counted > 0, buffer, old))
            state.follow(counted)
        self._skipped = (self._skipped + 1) * (1 - counted)
        metrics = self._describe(judged) | {f"gradient/{name}": norm for name, norm in norms.items()}
        rate = torch.full_like(norms["norm"], config.optimizer.learning_rate * factor)
        metrics |= {"gradient/norm_max": norms["norm"], "optimizer/learning_rate": rate}
        return StepResult(metrics | (game.metrics if game is not None else {}), counted)

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Metrics:
        """Judge the model on a batch, over whole windows; returns scalars that stay on the device.

        Without the discriminator: its opinion changes as it learns, and losses of different epochs could not be
        compared. Raises `DatasetError` where latents are not finite.
        """
        model = self._state.judged
        model.eval()
        with record_function("evaluate"):
            source, goal = self._latents(batch)
            require_finite("input", batch.keys, source)
            require_finite("target", batch.target_keys, goal)
            with self._precision():
                output: ModelOutput = model(source, goal)
            return self._describe([self._listen(output, source, goal, (0, source.shape[2]), None)])

    def skipped_in_a_row(self) -> int:
        """Count the skips since the last step that counted; waits for the device."""
        return int(self._skipped)

    def forget_skips(self) -> None:
        """Begin to count anew, after a return to sound weights."""
        self._skipped.zero_()

    def gradient_peaks(self) -> dict[str, float]:
        """Tell the norm of each weight's gradient, as the last step left it, clipped; waits for the device."""
        return norms_by_weight(self._state.model)

    def _update(self, counted: Tensor, norms: Metrics, game: _Game | None, factor: float) -> None:
        """Update the model, and the discriminator where it has played, or neither."""
        config, adversary = self._config.optimizer, self._state.adversary
        clip_gradients(config, self._parts, norms)
        step_if_finite(self._state.optimizer, counted, config.learning_rate * factor)
        if game is not None and adversary is not None:
            clip_gradients(config, game.parts, game.norms)
            rate = config.for_discriminator(self._config.discriminator.learning_rate).learning_rate
            step_if_finite(adversary.optimizer, counted, rate * factor)

    def _forward(self, batch: Batch) -> _Judged:
        source, goal = self._latents(batch)
        with self._precision():
            with record_function("step/model"):
                output: ModelOutput = self._model(source, goal)
            logits = self._ask_adversary(output.latents)
        return self._listen(output, source, goal, self._crop(source.shape[2]), logits)

    def _listen(
        self, output: ModelOutput, source: Tensor, goal: Tensor, crop: tuple[int, int], fake_logits: Tensor | None
    ) -> _Judged:
        # Losses are computed in float32, whatever the model was: spectra and small differences need it.
        losses = self._config.losses
        with record_function("step/decode"):
            crops = self._decode(output, source, goal, *crop) if losses.needs_audio else None
        with record_function("step/losses"):
            report = compute_losses(losses, LossInputs(crops, output.agent, fake_logits), self._config.compat)
        return _Judged(output, goal, report, crops)

    def _decode(self, output: ModelOutput, source: Tensor, goal: Tensor, start: int, stop: int) -> AudioCrops:
        seconds = (stop - start) / self._codec.spec.frame_rate
        decoded = self._codec.decode_crop(output.latents.float(), start, stop)
        composed = None if output.agent is None or not self._config.losses.needs_pattern else output.agent.pattern
        pattern = None if composed is None else self._codec.decode_crop(composed, start, stop)
        with torch.no_grad():
            heard = self._codec.decode_crop(torch.cat([source, goal]), start, stop).chunk(2)
        return AudioCrops(decoded, heard[0], heard[1], segments_for(seconds), pattern)

    def _ask_adversary(self, latents: Tensor) -> Tensor | None:
        if self._state.adversary is None:
            return None
        discriminator = self._state.adversary.discriminator
        with _frozen(discriminator), record_function("step/discriminator"):
            logits: Tensor = discriminator(latents)
        return logits

    def _play(self, adversary: Adversary, judged: Sequence[_Judged]) -> _Game:
        """Let the discriminator judge what the generator has just made; nothing is generated again."""
        assert self._judge is not None
        self._judge.train()
        adversary.optimizer.zero_grad(set_to_none=True)
        real = torch.cat([roll_targets(one.goal) for one in judged])
        fake = torch.cat([one.output.latents.detach() for one in judged])
        with record_function("step/discriminator"):
            with self._precision():
                # In one pass: gradients of all ranks meet once.
                logits = self._judge(torch.cat([real, fake]))
            verdict = discriminator_loss(*logits.chunk(2))
            _backward(verdict.loss, 1)
        parts = {"discriminator": list(adversary.discriminator.parameters())}
        norms = gradient_norms(parts)
        metrics = {
            "gan/discriminator_loss": verdict.loss.detach(),
            "gan/real_accuracy": verdict.real_accuracy,
            "gan/fake_accuracy": verdict.fake_accuracy,
            "gan/gradient_norm": norms["norm"],
        }
        return _Game(parts, norms, metrics)

    def _latents(self, batch: Batch) -> tuple[Tensor, Tensor]:
        device = self._runtime.device
        source = self._codec.latents(batch.input.to(device, non_blocking=True)).float()
        if self._config.data.unity_test:
            return source, source
        return source, self._codec.latents(batch.target.to(device, non_blocking=True)).float()

    def _crop(self, frames: int) -> tuple[int, int]:
        wanted = self._config.train.audio_crop_seconds
        crop = frames if wanted is None else min(frames, round(wanted * self._codec.spec.frame_rate))
        start = crop_start(self._config.train.seed, self._state.progress.step, frames, crop)
        return start, start + crop

    def _precision(self) -> AbstractContextManager[object]:
        wanted, device = self._config.train.precision, self._runtime.device.type
        if wanted == "bf16" or (wanted == "auto" and device == "cuda"):
            return torch.autocast(device, dtype=torch.bfloat16)
        return nullcontext()

    @staticmethod
    def _synchronised(model: nn.Module, *, last: bool) -> AbstractContextManager[object]:
        """Let the gradients of all ranks meet once a step, with its last batch."""
        if last or not isinstance(model, DistributedDataParallel):
            return nullcontext()
        return model.no_sync()

    def _describe(self, judged: Sequence[_Judged]) -> Metrics:
        """Average the scalars of several batches."""
        all_of_them = [self._describe_one(one) for one in judged]
        if len(all_of_them) == 1:
            return all_of_them[0]
        return {name: torch.stack([each[name] for each in all_of_them]).mean(0) for name in all_of_them[0]}

    def _describe_one(self, judged: _Judged) -> Metrics:
        """Name the scalars of a batch: losses raw and weighted, the agent's state, levels and likeness."""
        output, report = judged.output, judged.report
        metrics = {"loss/total": report.total.detach()}
        metrics |= {f"loss/{name}": value for name, value in report.raw.items()}
        metrics |= {f"weighted/{name}": value * self._config.losses.weight(name) for name, value in report.raw.items()}
        with torch.no_grad():
            metrics |= {"level/scale": output.scale.mean(), "level/clamped": output.clamped.float().mean()}
            if output.agent is not None:
                metrics |= {f"agent/{name}": value for name, value in output.agent.metrics().items()}
            if judged.crops is not None:
                metrics |= _likeness(judged.crops)
        return metrics


def _likeness(crops: AudioCrops) -> Metrics:
    """How much the output is like its sources: envelope correlations, and its RMS over theirs."""
    envelopes = [amplitude_envelope(audio, crops.segments) for audio in (crops.output, crops.input, crops.target)]
    made, *sources = (rms(audio) for audio in (crops.output, crops.input, crops.target))
    wanted = ((sources[0].square() + sources[1].square()) / 2).sqrt()
    return {
        "likeness/input": envelope_correlation(envelopes[0], envelopes[1]).mean(),
        "likeness/target": envelope_correlation(envelopes[0], envelopes[2]).mean(),
        "level/rms_ratio": (made / wanted).mean(),
    }


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through a module without reaching its own weights."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def _backward(loss: Tensor, count: int) -> None:
    """Add the gradients of one of `count` losses; of one that is not finite they are no numbers, on every rank.

    By itself such a loss may have finite gradients: that of the root of infinity is 0.
    """
    torch.autograd.backward(loss, torch.where(loss.detach().isfinite(), 1 / count, torch.nan))


def _saved_buffers(model: nn.Module) -> list[Tensor]:
    """Find what a forward pass in training changes and a checkpoint keeps: statistics, and spectral norms' vectors."""
    saved = model.state_dict().keys()
    return [buffer for name, buffer in model.named_buffers() if name in saved]

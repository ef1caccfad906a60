"""One step: a batch becomes losses, and the losses an update. No files, no Ray, no waiting for the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from shards.codec import Codec
from shards.order import derive
from shards.reader import Batch
from training.config import Config
from training.data import require_finite
from training.losses import AudioCrops, LossInputs, LossReport, compute_losses, discriminator_loss, roll_targets
from training.losses.modulation import segments_for
from training.metrics import Metrics
from training.models.cascade import ModelOutput
from training.optim import clip_gradients
from training.runtime import Runtime
from training.state import Adversary, TrainState

_CROP, _NOISE = 1, 2


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed the step's random numbers (dropout, noise) from its place alone, so that a resume repeats them."""
    torch.manual_seed(derive(seed, step, rank, _NOISE))


def crop_start(seed: int, step: int, frames: int, crop: int) -> int:
    """Draw the first frame of a step's crop, uniformly and equal on all ranks."""
    return derive(seed, step, _CROP) % (frames - crop + 1)


class Step:
    """The training step and its counterpart for evaluation, on a state that it updates."""

    def __init__(self, config: Config, codec: Codec, state: TrainState, runtime: Runtime) -> None:
        self._config, self._codec, self._state, self._runtime = config, codec, state, runtime
        self._model = runtime.wrap(state.model)
        self._judge = runtime.wrap(state.adversary.discriminator) if state.adversary is not None else None

    def train(self, batch: Batch) -> Metrics:
        """Update the model, and its adversary, by one batch; returns scalars that stay on the device."""
        state = self._state
        seed_step(self._config.train.seed, state.progress.step, self._runtime.rank)
        state.model.schedule(state.progress.step)
        self._model.train()
        source, goal = self._latents(batch)
        with self._precision():
            output: ModelOutput = self._model(source, goal)
            logits = self._ask_adversary(output.latents)
        report = self._judge_output(output, source, goal, *self._crop(source.shape[2]), fake_logits=logits)
        state.optimizer.zero_grad(set_to_none=True)
        report.total.backward()  # type: ignore[no-untyped-call]
        norm = clip_gradients(self._config.optimizer, state.model.parameters())
        state.optimizer.step()
        metrics = {**describe(output, report), "gradient/norm": norm}
        if state.adversary is not None:
            metrics |= self._train_adversary(state.adversary, roll_targets(goal), output.latents.detach())
        return metrics

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Metrics:
        """Judge the model on a batch, over whole windows; returns scalars that stay on the device.

        Without the discriminator: its opinion changes as it learns, and losses of different epochs could not be
        compared. Raises `DatasetError` where latents are not finite.
        """
        self._state.model.eval()
        source, goal = self._latents(batch)
        require_finite("input", batch.keys, source)
        require_finite("target", batch.target_keys, goal)
        with self._precision():
            output = self._state.model(source, goal)
        return describe(output, self._judge_output(output, source, goal, 0, source.shape[2]))

    def _judge_output(
        self,
        output: ModelOutput,
        source: Tensor,
        goal: Tensor,
        start: int,
        stop: int,
        fake_logits: Tensor | None = None,
    ) -> LossReport:
        # Losses are computed in float32, whatever the model was: spectra and small differences need it.
        losses = self._config.losses
        crops = self._decode(output.latents, source, goal, start, stop) if losses.needs_audio else None
        return compute_losses(losses, LossInputs(crops, output.agent, fake_logits), self._config.compat)

    def _decode(self, output: Tensor, source: Tensor, goal: Tensor, start: int, stop: int) -> AudioCrops:
        seconds = (stop - start) / self._codec.spec.frame_rate
        decoded = self._codec.decode_crop(output.float(), start, stop)
        with torch.no_grad():
            heard = [self._codec.decode_crop(latents, start, stop) for latents in (source, goal)]
        return AudioCrops(decoded, heard[0], heard[1], segments_for(seconds))

    def _ask_adversary(self, latents: Tensor) -> Tensor | None:
        if self._state.adversary is None:
            return None
        discriminator = self._state.adversary.discriminator
        with _frozen(discriminator):
            logits: Tensor = discriminator(latents)
        return logits

    def _train_adversary(self, adversary: Adversary, real: Tensor, fake: Tensor) -> Metrics:
        assert self._judge is not None
        self._judge.train()
        with self._precision():
            # In one pass: gradients of all ranks meet once.
            logits = self._judge(torch.cat([real, fake]))
        verdict = discriminator_loss(*logits.chunk(2))
        adversary.optimizer.zero_grad(set_to_none=True)
        verdict.loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_gradients(self._config.optimizer, adversary.discriminator.parameters())
        adversary.optimizer.step()
        return {
            "gan/discriminator_loss": verdict.loss.detach(),
            "gan/real_accuracy": verdict.real_accuracy,
            "gan/fake_accuracy": verdict.fake_accuracy,
            "gan/gradient_norm": norm,
        }

    def _latents(self, batch: Batch) -> tuple[Tensor, Tensor]:
        device = self._runtime.device
        source, goal = (
            self._codec.latents(stored.to(device, non_blocking=True)) for stored in (batch.input, batch.target)
        )
        return source.float(), goal.float()

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


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through a module without reaching its own weights."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def describe(output: ModelOutput, report: LossReport) -> Metrics:
    """Name the scalars of a step: raw losses, the weighted total, the agent's state, the level."""
    metrics = {"loss/total": report.total.detach(), "model/scale": output.scale.mean().detach()}
    metrics |= {f"loss/{name}": value for name, value in report.raw.items()}
    if output.agent is not None:
        with torch.no_grad():
            metrics |= {f"agent/{name}": value for name, value in output.agent.metrics().items()}
    return metrics

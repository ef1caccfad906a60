"""One step: a batch becomes losses, and the losses an update. No files, no Ray, no waiting for the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from shards.codec import Codec
from shards.order import derive
from shards.reader import Batch
from training.config import Config
from training.losses import AudioCrops, LossInputs, LossReport, compute_losses
from training.losses.modulation import segments_for
from training.metrics import Metrics
from training.models.cascade import CascadeOutput
from training.optim import clip_gradients

_CROP, _NOISE = 1, 2


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed the step's random numbers (dropout, noise) from its place alone, so that a resume repeats them."""
    torch.manual_seed(derive(seed, step, rank, _NOISE))


def crop_start(seed: int, step: int, frames: int, crop: int) -> int:
    """Draw the first frame of a step's crop, uniformly and equal on all ranks."""
    return derive(seed, step, _CROP) % (frames - crop + 1)


class Step:
    """The training step and its counterpart for evaluation; holds no state of its own."""

    def __init__(self, config: Config, codec: Codec, device: torch.device, rank: int) -> None:
        self._config, self._codec, self._device, self._rank = config, codec, device, rank

    def train(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, step: int) -> Metrics:
        """Update the model by one batch; returns scalars that stay on the device."""
        seed_step(self._config.train.seed, step, self._rank)
        start, stop = self._crop(batch.input.shape[2], step)
        with self._precision():
            output, report = self._forward(model, batch, start, stop)
        optimizer.zero_grad(set_to_none=True)
        report.total.backward()  # type: ignore[no-untyped-call]
        norm = clip_gradients(self._config.optimizer, model.parameters())
        optimizer.step()
        return {**describe(output, report), "gradient/norm": norm}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batch: Batch) -> Metrics:
        """Judge the model on a batch, over whole windows; returns scalars that stay on the device."""
        with self._precision():
            output, report = self._forward(model, batch, 0, batch.input.shape[2])
        return describe(output, report)

    def _forward(self, model: nn.Module, batch: Batch, start: int, stop: int) -> tuple[CascadeOutput, LossReport]:
        source = self._codec.latents(batch.input.to(self._device, non_blocking=True))
        goal = self._codec.latents(batch.target.to(self._device, non_blocking=True))
        output: CascadeOutput = model(source, goal)
        crops = self._decode(output.latents, source, goal, start, stop) if self._config.losses.needs_audio else None
        masks = None if output.agent is None else output.agent.losses
        return output, compute_losses(self._config.losses, LossInputs(crops, masks))

    def _decode(self, output: Tensor, source: Tensor, goal: Tensor, start: int, stop: int) -> AudioCrops:
        seconds = (stop - start) / self._codec.spec.frame_rate
        # The codec was trained in float32, and its output is what the losses measure.
        with torch.autocast(self._device.type, enabled=False):
            decoded = self._codec.decode_crop(output.float(), start, stop)
            with torch.no_grad():
                heard = [self._codec.decode_crop(latents, start, stop) for latents in (source, goal)]
        return AudioCrops(decoded, heard[0], heard[1], segments_for(seconds))

    def _crop(self, frames: int, step: int) -> tuple[int, int]:
        wanted = self._config.train.audio_crop_seconds
        crop = frames if wanted is None else min(frames, round(wanted * self._codec.spec.frame_rate))
        start = crop_start(self._config.train.seed, step, frames, crop)
        return start, start + crop

    def _precision(self) -> AbstractContextManager[object]:
        wanted = self._config.train.precision
        if wanted == "bf16" or (wanted == "auto" and self._device.type == "cuda"):
            return torch.autocast(self._device.type, dtype=torch.bfloat16)
        return nullcontext()


def describe(output: CascadeOutput, report: LossReport) -> Metrics:
    """Name the scalars of a step: raw losses, the weighted total, the agent's state, the level."""
    metrics = {"loss/total": report.total.detach(), "model/scale": output.scale.mean().detach()}
    metrics |= {f"loss/{name}": value for name, value in report.raw.items()}
    if output.agent is not None:
        metrics["agent/complementarity"] = output.agent.complementarity.detach()
        metrics["agent/input_mask_mean"] = output.agent.input_mask.mean().detach()
        metrics["agent/target_mask_mean"] = output.agent.target_mask.mean().detach()
    return metrics

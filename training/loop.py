"""The order of things: epochs of steps, a validation after each, checkpoints, events. Nothing is computed here."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shards.dataset import Dataset
from shards.errors import CascadenceError
from training.checkpoint import CHECKPOINTS, CheckpointRecord, save_checkpoint
from training.config import Config
from training.data import rank_batch
from training.metrics import MetricMeans
from training.runtime import Runtime
from training.state import TrainState
from training.step import Step
from training.tracking import Sink


@dataclass
class Trainer:
    """A rank's training run: everything that the loop puts in order."""

    config: Config
    runtime: Runtime
    dataset: Dataset
    state: TrainState
    step: Step
    sinks: Sequence[Sink]
    run_dir: Path

    def run(self) -> None:
        """Train to the last epoch. Raises `CascadenceError` when the loss stops being a number."""
        self._log("start", {}, **self._scale())
        while self.state.progress.epoch < self.config.train.epochs:
            trained = self._train_epoch()
            judged = self._validate() if "val" in self.dataset.splits else trained
            self._finish_epoch(trained, judged)
        self._log("end", {})

    def _train_epoch(self) -> dict[str, float]:
        loader = self.dataset.loader(
            "train",
            self._batch_size,
            self.config.train.seed,
            self.state.progress.epoch,
            self.runtime.rank,
            self.runtime.world_size,
        )
        if self.state.progress.loader is not None:
            loader.load_state_dict(self.state.progress.loader)
        recent, epoch = MetricMeans(), MetricMeans()
        steps_left, began, counted = len(loader), time.monotonic(), 0
        for batch in loader:
            metrics = self.step.train(batch)
            recent.add(metrics)
            epoch.add(metrics)
            self._advance(step=self.state.progress.step + 1, loader=loader.state_dict())
            steps_left, counted = steps_left - 1, counted + 1
            if self.state.progress.step % self.config.train.log_steps == 0 or steps_left == 0:
                read = self._check(recent.read(self.runtime.all_reduce))
                rate = counted * loader.global_batch / (time.monotonic() - began)
                self._log("train", read | {"speed/pairs_per_second": rate})
                began, counted = time.monotonic(), 0
            every = self.config.train.checkpoint_steps
            if every is not None and self.state.progress.step % every == 0 and steps_left:
                self._save("last", {})
        return epoch.read(self.runtime.all_reduce)

    def _validate(self) -> dict[str, float]:
        """Judge the model on the held-out pairs; each counts once, and the padding of the last batch not at all."""
        self.runtime.share_statistics(self.state.model)
        means = MetricMeans()
        loader = self.dataset.loader(
            "val", self._batch_size, rank=self.runtime.rank, world_size=self.runtime.world_size
        )
        for batch in loader:
            real = int(batch.weight.sum())
            # A rank without a real row judges one of padding, at weight 0: all ranks hold the same metrics.
            means.add(self.step.evaluate(batch.head(max(real, 1))), weight=real)
        return means.read(self.runtime.all_reduce)

    def _finish_epoch(self, trained: dict[str, float], judged: dict[str, float]) -> None:
        progress = self.state.progress
        loss, epoch = judged.get("loss/total", math.inf), progress.epoch + 1
        better = progress.improves(loss)
        self._advance(epoch=epoch, loader=None)
        if better:
            self._advance(best_loss=loss, best_epoch=epoch)
        self._log("epoch", {f"val/{name}": value for name, value in judged.items()}, best=better, train=trained)
        kept = epoch % self.config.train.checkpoint_epochs == 0
        for name, wanted in (("last", True), ("best", better), (f"epoch_{epoch:04d}", kept)):
            if wanted:
                self._save(name, judged)

    def _save(self, name: str, metrics: dict[str, float]) -> None:
        if not self.runtime.leads:
            return
        record = CheckpointRecord(
            codec=self.dataset.codec,
            dataset_fingerprint=self.dataset.manifest.fingerprint,
            frames=self.dataset.frames,
            progress=self.state.progress.as_json(),
            metrics=metrics,
        )
        save_checkpoint(self.run_dir / CHECKPOINTS / name, self.state, self.config, record)

    def _log(self, kind: str, metrics: dict[str, float], **facts: object) -> None:
        progress = self.state.progress
        event = {"event": kind, "step": progress.step, "epoch": progress.epoch, "time": round(time.time(), 3)}
        for sink in self.sinks:
            sink.log(event | metrics | facts)

    def _check(self, metrics: dict[str, float]) -> dict[str, float]:
        loss = metrics.get("loss/total", 0.0)
        if not math.isfinite(loss):
            raise CascadenceError(
                f"the loss is {loss} at step {self.state.progress.step}; go on from the last checkpoint with a lower "
                "rate (--set optimizer.learning_rate=5e-5)"
            )
        return metrics

    def _scale(self) -> dict[str, object]:
        steps = self.dataset.splits["train"].samples // (self._batch_size * self.runtime.world_size)
        return {
            "epochs": self.config.train.epochs,
            "steps_per_epoch": steps,
            "batch_size": self._batch_size,
            "world_size": self.runtime.world_size,
            "parameters": sum(p.numel() for p in self.state.model.parameters()),
        }

    @property
    def _batch_size(self) -> int:
        return rank_batch(self.dataset, self.config.data.batch_size, self.runtime.world_size)

    def _advance(self, **changes: object) -> None:
        self.state.progress = replace(self.state.progress, **changes)  # type: ignore[arg-type]

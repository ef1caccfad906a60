"""The order of things: epochs of steps, a validation after each, checkpoints, events. Nothing is computed here."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from shards.dataset import Dataset
from shards.reader import Batch, Loader
from training.checkpoint import (
    CHECKPOINTS,
    Checkpoint,
    CheckpointRecord,
    newest_checkpoint,
    restore_state,
    save_checkpoint,
)
from training.config import Config
from training.data import rank_batch
from training.events import Sink
from training.feed import Waiting, on_device
from training.health import GaveUp, HealthMonitor
from training.metrics import MetricMeans
from training.postmortem import examine_step
from training.runtime import Runtime
from training.schedule import after_epoch
from training.state import TrainState
from training.step import Step
from training.stopping import StopNote

SKIPS, ROLLBACKS = 3, 3
"""Steps in a row that may be skipped before the training goes back, and how often it may go back."""
_GO_ON, _SAVE, _STOP = range(3)


class Stopped(Exception):
    """The training saved what it had and ended, because it was asked to."""


class _Unsound(Exception):
    """Steps in a row were not finite; `batches` are those of the last one."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        super().__init__()
        self.batches = batches


class Preview(Protocol):
    """Makes pieces from held-out pairs now and then, so that one can hear how a training goes."""

    def make(self, epoch: int, *, last: bool) -> list[Path]:
        """Make the pieces of an epoch, where it is their turn; gives the folders that they lie in."""


class Profiler(Protocol):
    """Watches steps."""

    def step(self) -> None:
        """A step has ended."""

    def close(self) -> None:
        """The last step has ended."""


@dataclass
class Trainer:
    """A rank's training run: everything that the loop puts in order."""

    config: Config
    runtime: Runtime
    dataset: Dataset
    state: TrainState
    step: Step
    sinks: Sequence[Sink]
    health: HealthMonitor
    stop: StopNote
    run_dir: Path
    preview: Preview | None = None
    profiler: Profiler | None = None
    _saved: float = field(default_factory=time.monotonic)
    _begun: int = 0

    def run(self) -> None:
        """Train to the last epoch, or to the end of patience.

        Raises `Stopped` where it was asked to stop, and `GaveUp` where the training can't be saved any more.
        """
        self._log("start", {}, **self._scale())
        self._begun = self.state.progress.step
        if newest_checkpoint(self.run_dir) is None:
            self._save("last", {})  # there must be something to go back to
        while not self._finished():
            try:
                trained = self._train_epoch()
            except _Unsound as unsound:
                self._roll_back(unsound.batches)
                continue
            judged = self._validate() if "val" in self.dataset.splits else trained
            self._finish_epoch(trained, judged)
        self._log("end", {})

    def _finished(self) -> bool:
        progress, patience = self.state.progress, self.config.train.patience
        waited = progress.epoch - (progress.best_epoch or 0)
        if progress.loader is not None or progress.epoch == 0:
            return False
        return progress.epoch >= self.config.train.epochs or (patience is not None and waited >= patience)

    def _train_epoch(self) -> dict[str, float]:
        loader = self._loader()
        recent, epoch = MetricMeans(), MetricMeans()
        if self.state.progress.loader is not None:
            loader.load_state_dict(self.state.progress.loader)
            for name, means in (("recent", recent), ("epoch", epoch)):
                saved = self.state.progress.means[name]
                means.load_state_dict(saved, self.runtime.device, leads=self.runtime.leads)
        position, pairs_a_step = loader.state_dict(), self.config.train.accumulate * loader.global_batch
        steps_left, began, counted = len(loader) // self.config.train.accumulate, time.monotonic(), 0
        waiting = Waiting(on_device(loader, self.runtime.device))
        for batches in _grouped(waiting, self.config.train.accumulate, steps_left):
            done = self.step.train(batches)
            for means in (recent, epoch):
                means.add(done.metrics, done.counted)
                means.add({"health/skipped": 1 - done.counted})
            # Counted here: on a GPU the loader is ahead of what was trained.
            position = {**position, "samples_done": position["samples_done"] + pairs_a_step}
            self._advance(step=self.state.progress.step + 1, loader=position)
            steps_left, counted = steps_left - 1, counted + 1
            if self.profiler is not None:
                self.profiler.step()
            told = self.state.progress.step % self.config.train.log_steps == 0 or steps_left == 0
            if told or self.runtime.device.type == "cpu":
                # On a GPU only now and then: the question waits for the device.
                self._check_skips(batches)
            if told:
                seconds = time.monotonic() - began
                speed = {
                    "speed/pairs_per_second": counted * pairs_a_step / seconds,
                    "speed/wait_fraction": waiting.take_seconds() / seconds,
                }
                if self.runtime.leads and not self.step.skipped_in_a_row():
                    self.health.see_gradients(self.step.gradient_peaks())
                self._log("train", recent.read(self.runtime.all_reduce) | speed | self.runtime.memory())
                began, counted = time.monotonic(), 0
            self._save_between_steps(recent, epoch, steps_left)
        self._keep_means(recent, epoch)
        return epoch.read(self.runtime.all_reduce)

    def _loader(self) -> Loader:
        return self.dataset.loader(
            "train",
            self._batch_size,
            self.config.train.seed,
            self.state.progress.epoch,
            self.runtime.rank,
            self.runtime.world_size,
            re_pair=self.config.data.shuffle_targets,
            pin_memory=self.runtime.device.type == "cuda",
        )

    def _check_skips(self, batches: Sequence[Batch]) -> None:
        if self.step.skipped_in_a_row() >= SKIPS:
            raise _Unsound(batches)

    def _save_between_steps(self, recent: MetricMeans, epoch: MetricMeans, steps_left: int) -> None:
        """Save where it is time to, or where a stop is asked for; all ranks decide it together."""
        every, minutes = self.config.train.checkpoint_steps, self.config.train.save_minutes
        wish = self._stop_wish()
        if self.runtime.leads and minutes is not None and time.monotonic() - self._saved >= 60 * minutes:
            wish = max(wish, _SAVE)
        wish = self.runtime.agree(wish)
        due = every is not None and self.state.progress.step % every == 0 and steps_left > 0
        if wish == _GO_ON and not due:
            return
        if self.step.skipped_in_a_row():
            # What is not known to be sound is not saved, and a stop leaves the last good one.
            if wish == _STOP:
                raise Stopped
            return
        self._keep_means(recent, epoch)
        self._save("interrupted" if wish == _STOP else "last", {})
        if wish == _STOP:
            raise Stopped

    def _keep_means(self, recent: MetricMeans, epoch: MetricMeans) -> None:
        reduced = {name: m.state_dict(self.runtime.all_reduce) for name, m in (("recent", recent), ("epoch", epoch))}
        self._advance(means=reduced)

    def _stop_wish(self) -> int:
        return _STOP if self.runtime.leads and self.stop.read() else _GO_ON

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
            if self.runtime.agree(self._stop_wish()) == _STOP:
                # The epoch's steps are done and its position says so; only the judging comes again.
                self._save("interrupted", {})
                raise Stopped
        return means.read(self.runtime.all_reduce)

    def _finish_epoch(self, trained: dict[str, float], judged: dict[str, float]) -> None:
        progress = self.state.progress
        loss, epoch = judged.get("loss/total", math.inf), progress.epoch + 1
        better = progress.improves(loss)
        self.state.progress = after_epoch(self.config.schedule, self.state.progress, better)
        self._advance(epoch=epoch, loader=None, means={})
        if better:
            self._advance(best_loss=loss, best_epoch=epoch)
        validated = {f"val/{name}": value for name, value in judged.items()}
        self._log("epoch", validated, best=better, train=trained, dead=self.health.take_dead())
        # Weights whose last steps were skipped may be the reason; that they judge the held-out pairs speaks for them.
        sound = math.isfinite(loss) or not self.step.skipped_in_a_row()
        kept = epoch % self.config.train.checkpoint_epochs == 0
        for name, wanted in (("last", sound), ("best", better), (f"epoch_{epoch:04d}", kept and sound)):
            if wanted:
                self._save(name, judged)
        self._make_samples(epoch)

    def _make_samples(self, epoch: int) -> None:
        if self.preview is None:
            return
        try:
            folders = self.preview.make(epoch, last=self._finished())
        except Exception as error:  # a full disk, no memory left, numbers that are none: no reason to end a training
            self._log("warning", {}, text=f"no samples of epoch {epoch}: {' '.join(str(error).split())}")
            return
        if folders:
            self._log("samples", {}, folders=[folder.relative_to(self.run_dir).as_posix() for folder in folders])

    def _roll_back(self, batches: Sequence[Batch]) -> None:
        """Go back to the last good checkpoint at half the rate; after too many returns, say where it began and end."""
        progress = self.state.progress
        if progress.rollbacks >= ROLLBACKS:
            self._advance(step=progress.step - 1)  # of the step that is looked at: its random numbers, its rate
            where = examine_step(self.step, self.state, self.config, batches, self.runtime)
            self._log("failed", {}, where=where)
            raise GaveUp(self.run_dir, self.state.progress.step, where)
        restore_state(self._sound_checkpoint(), self.state)
        self.runtime.agree(_GO_ON)  # nobody replaces the checkpoint while another rank still reads it
        self.step.forget_skips()
        self._advance(rollbacks=progress.rollbacks + 1)
        self._begun = self.state.progress.step
        self._save("last", {})  # before it is told: whoever is killed here goes on from here
        self._log("rollback", {}, from_step=progress.step, rate_factor=self.state.progress.rollback_factor)

    def _sound_checkpoint(self) -> Checkpoint:
        """Find the newest checkpoint, or one before it where no step has counted since that one: it is the fault."""
        newest = newest_checkpoint(self.run_dir)
        assert newest is not None, "a run begins with a checkpoint"
        if self.state.progress.step - self._begun > self.step.skipped_in_a_row():
            return newest
        return newest_checkpoint(self.run_dir, before=self._begun) or newest

    def _save(self, name: str, metrics: dict[str, float]) -> None:
        self._saved = time.monotonic()
        if self.runtime.leads:
            record = CheckpointRecord(
                codec=self.dataset.codec,
                dataset_fingerprint=self.dataset.manifest.fingerprint,
                frames=self.dataset.frames,
                progress=self.state.progress.as_json(),
                metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
            )
            save_checkpoint(self.run_dir / CHECKPOINTS / name, self.state, self.config, record)

    def _log(self, kind: str, metrics: dict[str, float], **facts: object) -> None:
        if not self.runtime.leads:
            return
        progress = self.state.progress
        event = {"event": kind, "step": progress.step, "epoch": progress.epoch, "time": round(time.time(), 3)}
        for told in self.health.hear(event | metrics | facts):
            for sink in self.sinks:
                sink.log(told)

    def _scale(self) -> dict[str, Any]:
        return {
            "epochs": self.config.train.epochs,
            "steps_per_epoch": steps_per_epoch(self.dataset, self.config, self.runtime.world_size),
            "batch_size": self._batch_size,
            "world_size": self.runtime.world_size,
            "process": os.getpid(),
            "parameters": sum(p.numel() for p in self.state.model.parameters()),
            "dataset": self.dataset.manifest.name,
            "pairs": {split: entry.samples for split, entry in self.dataset.splits.items()},
        }

    @property
    def _batch_size(self) -> int:
        return rank_batch(self.dataset, self.config.data.batch_size, self.runtime.world_size)

    def _advance(self, **changes: object) -> None:
        self.state.progress = replace(self.state.progress, **changes)  # type: ignore[arg-type]


def steps_per_epoch(dataset: Dataset, config: Config, world_size: int) -> int:
    """Count the steps of an epoch: whole ones only."""
    batch = rank_batch(dataset, config.data.batch_size, world_size)
    return dataset.splits["train"].samples // (batch * world_size) // config.train.accumulate


def _grouped(batches: Iterator[Batch] | Waiting, size: int, count: int) -> Iterator[list[Batch]]:
    """Give `count` groups of batches; what is left of an epoch is left out."""
    several = iter(batches)
    for _ in range(count):
        yield list(islice(several, size))

"""A training step of the masking preset with its GAN, against the seeds' recipe, and what surrounds the step.

EnCodec's architecture with seeded weights, 16 s pairs, batch 2, all cores. The seeds' recipe is the same losses on the
same model, in their way: both sources are encoded in the step, output and input are decoded whole, attention has
dropout 0.1 (the slow path), the agent is asked twice, and everything is float32. Each recipe has a process of its own,
which tells seconds a step and the most memory that it held.

With `--parts`: what waiting for the loader takes of a step (`wait`), Ray Train against torchrun (`ray`), and two
workers on two cores against one on one core (`scaling`), beside what two trainings that know nothing of each other
give (`scaling_ceiling`): they share memory and caches, too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.dataset import make_dataset
from benchmarks.memory import in_own_process, peak_mb
from benchmarks.weights import seeded_weights
from shards.codec import Codec, load_codec
from shards.heap import keep_freed_memory
from shards.reader import Batch
from shards.settings import find_config, load_settings
from training.config import CONFIGS, Config
from training.events import METRICS, read_events
from training.losses import AudioCrops
from training.losses.modulation import segments_for
from training.models.cascade import ModelOutput
from training.models.masking_agent import MaskingAgent, MaskingOutput
from training.runtime import Runtime
from training.state import new_state
from training.step import Step

BATCH, DIM, FRAMES = 2, 128, 1200
RECIPES = {
    "ours": ("train.precision=fp32",),
    "ours, bf16": ("train.precision=bf16",),
    "seeds": ("train.precision=fp32",),
}
SEEDS = ("model.cascade.attention_dropout=0.1", "model.masking.attention_dropout=0.1", "train.audio_crop_seconds=null")
PARTS = ("step", "wait", "ray", "scaling")
LAUNCHED = (
    "model.cascade.layers=2",
    f"data.batch_size={BATCH}",
    "train.log_steps=1",
    "train.epochs=1",
    "train.save_minutes=null",
    "tracking.mlflow=false",
)


class SeedsStep(Step):
    """The step as the seeds took it: from audio, decoding whole, and masks made twice."""

    def __init__(self, config: Config, codec: Codec, *others: Any) -> None:
        super().__init__(config, codec, *others)
        self._audio = 0.1 * torch.randn(2, BATCH, 1, FRAMES * codec.spec.hop)
        agent = self._state.model.agent
        assert isinstance(agent, MaskingAgent)
        agent.register_forward_hook(_ask_again)

    def _latents(self, batch: Batch) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - audio takes its place
        with torch.no_grad():
            source, goal = (self._codec.encode(audio) for audio in self._audio)
        return source, goal

    def _decode(self, output: ModelOutput, source: Tensor, *_: object) -> AudioCrops:
        decoded = self._codec.decode(output.latents)
        with torch.no_grad():
            heard = self._codec.decode(source)
        return AudioCrops(decoded, heard, self._audio[1], segments_for(FRAMES / self._codec.spec.frame_rate))


def _ask_again(agent: MaskingAgent, sources: tuple[Tensor, Tensor], output: MaskingOutput) -> None:  # noqa: ARG001
    """Make the masks once more, to look at them."""
    with torch.no_grad():
        agent._masks(*sources)


def main() -> None:
    options = _options()
    found: dict[str, Any] = {
        "measured_on": {
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 2),
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        }
    }
    with tempfile.TemporaryDirectory(prefix="cascadence-bench-") as name:
        folder = Path(name)
        if "step" in options.parts:
            found |= measure_recipes(folder, options.recipe, options.steps)
        if {"wait", "ray", "scaling"} & set(options.parts):
            dataset = make_dataset(folder / "ds", 1)
            found |= measure_launches(folder, dataset, options.parts)
    print(json.dumps(found, indent=2) if options.json else "\n".join(_told(found)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--recipe", nargs="*", choices=list(RECIPES), default=["ours", "seeds"], help="which to take")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=["step", "wait"], help="what to measure")
    parser.add_argument("--steps", type=int, default=5, help="steps of each recipe, after one that does not count")
    return parser.parse_args()


def measure_recipes(folder: Path, recipes: Sequence[str], steps: int) -> dict[str, Any]:
    """Seconds a pair and peak memory of each recipe, and the ratios to the seeds'."""
    weights = seeded_weights(folder)
    rows = {name: in_own_process(take_steps, name, str(weights), steps) for name in recipes}
    found: dict[str, Any] = {"recipes": rows}
    if {"ours", "seeds"} <= rows.keys():
        ours, seeds = rows["ours"], rows["seeds"]
        found["speedup_over_seeds"] = seeds["seconds_a_pair"] / ours["seconds_a_pair"]
        found["memory_over_seeds"] = ours["peak_mb"] / seeds["peak_mb"]
    return found


def take_steps(recipe: str, weights: str, steps: int) -> dict[str, Any]:
    """Train some steps in this process; the median of their seconds, and the most memory held."""
    kind, extra = (SeedsStep, SEEDS) if recipe == "seeds" else (Step, ())
    overrides = [*RECIPES[recipe], *extra, f"data.batch_size={BATCH}", "losses.gan=0.1"]
    config = load_settings(Config, find_config(CONFIGS, "masking"), overrides)
    codec = load_codec("encodec", weights, allow_unknown_weights=True)
    state = new_state(config, DIM, torch.device("cpu"))
    step = kind(config, codec, state, Runtime(0, 1, torch.device("cpu")))
    if recipe != "seeds":
        keep_freed_memory()  # as a worker on a processor does
    latents = 5.7 * torch.randn(2, BATCH, DIM, FRAMES)
    batch = Batch(latents[0].half(), latents[1].half(), [""] * BATCH, [""] * BATCH, torch.ones(BATCH))
    seconds = []
    for number in range(steps + 1):
        began = time.perf_counter()
        step.train([batch])
        if number:
            seconds.append(time.perf_counter() - began)
    return {"seconds_a_pair": statistics.median(seconds) / BATCH, "seconds": seconds, "peak_mb": peak_mb()}


def measure_launches(folder: Path, dataset: Path, parts: Sequence[str]) -> dict[str, Any]:
    """Launch whole trainings, with `mdct` and two layers a stage, and compare what they logged."""
    found: dict[str, Any] = {}
    alone = launch(folder / "alone", dataset, [sys.executable], cores="0")
    found["wait_fraction"] = statistics.median(alone["wait"])
    if {"ray", "scaling"} & set(parts):
        torchrun = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node=2",
            "--no-python",
            "--",
            sys.executable,
        ]
        two = launch(folder / "torchrun", dataset, torchrun, threads=1)
        if "scaling" in parts:
            found["scaling_efficiency"] = two["rate"] / (2 * alone["rate"])
            with ThreadPoolExecutor(2) as pool:
                apart = pool.map(
                    lambda core: launch(folder / f"core_{core}", dataset, [sys.executable], cores=core), ("0", "1")
                )
            found["scaling_ceiling"] = sum(one["rate"] for one in apart) / (2 * alone["rate"])
        if "ray" in parts:
            ray = launch(folder / "ray", dataset, [sys.executable], workers=2)
            found["ray_over_torchrun"] = two["rate"] / ray["rate"]
    return found


def launch(
    run_dir: Path,
    dataset: Path,
    program: Sequence[str],
    *,
    cores: str | None = None,
    threads: int | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Run a training; pairs a second (median over its steps, without the first two) and shares of waiting."""
    sets = [part for override in LAUNCHED for part in ("--set", override)]
    place = ["--workers", str(workers)] if workers else ["--local"]
    pinned = ["taskset", "--cpu-list", cores] if cores is not None else []
    arguments = ["launch", "--shards", str(dataset), "--run-dir", str(run_dir), "--config", "masking", *place, *sets]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads or 1)}
    command = [*pinned, *program, "-m", "training", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    steps = [event for event, _ in read_events(run_dir / METRICS) if event["event"] == "train"][2:]
    return {
        "rate": statistics.median(event["speed/pairs_per_second"] for event in steps),
        "wait": [event["speed/wait_fraction"] for event in steps],
    }


def _told(found: dict[str, Any]) -> list[str]:
    lines = [", ".join(f"{name} {value}" for name, value in found["measured_on"].items())]
    for name, row in found.get("recipes", {}).items():
        lines.append(f"{name}: {row['seconds_a_pair']:.2f} s a pair, {row['peak_mb']:.0f} MB")
    return lines + [f"{name}: {value:.3g}" for name, value in found.items() if isinstance(value, float)]


if __name__ == "__main__":
    main()

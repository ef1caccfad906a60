"""What a training sounds like: now and then, pieces of a few held-out pairs, always the same ones."""

from __future__ import annotations

from pathlib import Path

import torch

from shards.audio import Samples
from shards.codec import Codec
from shards.dataset import Dataset
from shards.files import atomic_directory, write_json
from training.generate import decode_sources, generate
from training.levels import soft_limit
from training.pieces import ABOUT, fill_folder, write_sound
from training.sources import SourcePair, stored_pair
from training.state import TrainState

SAMPLES = "samples"
SOURCES = "sources"


class PairPreview:
    """Makes pieces of `count` pairs every `every` epochs and after the last one, into RUN_DIR/samples.

    `samples/sources/PAIR` holds input and target, `samples/epoch_0010/PAIR` the output of the model that validation
    judges, with its pictures and numbers. Nothing here changes what is learnt: no step's random numbers come from
    before the step, and the model goes back to the mode that it was in.
    """

    def __init__(
        self, run_dir: Path, dataset: Dataset, codec: Codec, state: TrainState, every: int, count: int
    ) -> None:
        self._folder, self._codec, self._state = run_dir / SAMPLES, codec, state
        self._dataset, self._every, self._count = dataset, every, count
        self._sources: list[tuple[SourcePair, dict[str, Samples]]] = []

    def make(self, epoch: int, *, last: bool) -> list[Path]:
        """Make the pieces of an epoch, where it is their turn; gives the folders that they lie in."""
        if epoch % self._every and not last:
            return []
        model = self._state.judged
        device, was_training = next(model.parameters()).device, model.training
        if not self._sources:
            self._sources = self._decode_sources(device)
        made = self._folder / f"epoch_{epoch:04d}"
        model.eval()
        try:
            with atomic_directory(made) as inside:
                for pair, heard in self._sources:
                    piece = generate(model, self._codec, pair, heard)
                    (inside / pair.name).mkdir()
                    fill_folder(inside / pair.name, piece, self._codec.spec.sample_rate, ("output",))
        finally:
            model.train(was_training)
        return [self._folder / SOURCES, made]

    def _decode_sources(self, device: torch.device) -> list[tuple[SourcePair, dict[str, Samples]]]:
        pairs = held_out_pairs(self._dataset, self._count)
        heard = [decode_sources(self._codec, pair, device) for pair in pairs]
        with atomic_directory(self._folder / SOURCES) as inside:
            for pair, audio in zip(pairs, heard, strict=True):
                own = inside / pair.name
                own.mkdir()
                for side, samples in audio.items():
                    write_sound(own / f"{side}.wav", soft_limit(samples), self._codec.spec.sample_rate)
                write_json(own / ABOUT, {"name": pair.name, "labels": dict(pair.labels)})
        return list(zip(pairs, heard, strict=True))


def held_out_pairs(dataset: Dataset, count: int) -> list[SourcePair]:
    """Take pairs at even distances from the validation split, or from that of training where there is no other.

    At even distances, since neighbours are windows of the same track. Each is named after its place and its key.
    """
    split = "val" if "val" in dataset.splits else "train"
    there = dataset.splits[split].samples
    count = min(count, there)
    pairs = []
    for number in (place * there // count for place in range(count)):
        sample = dataset.read(dataset.location(split, number))
        source, goal = (torch.tensor(stored) for stored in (sample.input, sample.target))
        labels = {"input": sample.record.input.path, "target": sample.record.target.path}
        pairs.append(stored_pair(f"{number:04d}_{sample.record.key[:12]}", source, goal, labels=labels))
    return pairs

"""The same samples in the formats of litData and MosaicML Streaming, where these are installed (the extra `bench`)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]


def open_peers(batches: Sequence[tuple[Tensor, Tensor]], folder: Path, batch_size: int) -> dict[str, Batches]:
    """Write the samples of `batches` once for each peer that is installed; returns a shuffled reader of each."""
    pairs = [(source[row], goal[row]) for source, goal in batches for row in range(len(source))]
    peers: dict[str, Batches] = {}
    if find_spec("litdata") is not None:
        peers["litdata"] = _litdata(pairs, folder / "litdata", batch_size)
    if find_spec("streaming") is not None:
        peers["mosaicml-streaming"] = _streaming(pairs, folder / "streaming", batch_size)
    return peers


def _litdata(pairs: Sequence[tuple[Tensor, Tensor]], folder: Path, batch_size: int) -> Batches:
    from litdata import StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_bytes="64MB")
    for number, (source, goal) in enumerate(pairs):
        writer[number] = {"input": source, "target": goal}
    writer.done()
    writer.merge()
    return lambda: _stacked(iter(StreamingDataset(str(folder), shuffle=True)), batch_size)


def _streaming(pairs: Sequence[tuple[Tensor, Tensor]], folder: Path, batch_size: int) -> Batches:
    from streaming import MDSWriter, StreamingDataset

    shape = ",".join(map(str, pairs[0][0].shape))
    columns = dict.fromkeys(("input", "target"), f"ndarray:float16:{shape}")
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for source, goal in pairs:
            writer.write({"input": source.numpy(), "target": goal.numpy()})
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # they are only read
    dataset = StreamingDataset(local=str(folder), shuffle=True, batch_size=batch_size)
    return lambda: _stacked(iter(dataset), batch_size)


def _stacked(samples: Iterator[dict[str, Any]], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    rows: list[tuple[Tensor, Tensor]] = []
    for sample in samples:
        rows.append((torch.as_tensor(sample["input"]), torch.as_tensor(sample["target"])))
        if len(rows) == batch_size:
            source, goal = (torch.stack(side) for side in zip(*rows, strict=True))
            yield source, goal
            rows = []

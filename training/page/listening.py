"""The page of what `generate` made: every piece to hear and to see, beside its sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shards.files import write_bytes
from shards.page.document import set_page
from training.checkpoint import Checkpoint
from training.page import pictures
from training.page.views import describe_windows, view_piece
from training.pieces import read_piece

SHOWN = 12
"""Pieces on a page at most: with more it would be too large to open or to send."""


def write_listening_page(page: Path, folders: Sequence[Path], checkpoint: Checkpoint) -> Path:
    """Write the page of the pieces in these folders; gives its path. Raises `CascadenceError` for a damaged one."""
    pieces = [view_piece(read_piece(folder), folder.name) for folder in folders[:SHOWN]]
    text = set_page(
        "training.page",
        title="New music",
        eyebrow="Listening page",
        pieces=pieces,
        left_out=len(folders) - len(pieces),
        facts=_facts(checkpoint),
        run=None,
        frequency_marks=pictures.frequency_marks(),
        time_axis=pictures.time_axis,
    )
    write_bytes(page, text.encode())
    return page


def _facts(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """Say what made the pieces, without where it lies on this machine."""
    folder, record, progress = checkpoint.path.resolve(), checkpoint.record, checkpoint.progress
    run = f"{folder.parent.parent.name}, " if folder.parent.name == "checkpoints" else ""
    model = checkpoint.config.model
    facts = [
        ("Checkpoint", f"{run}{folder.name}: epoch {progress.epoch}, step {progress.step}"),
        ("Model", f"stages: {model.cascade.stages}, layers in each: {model.cascade.layers}, agent: {model.agent}"),
        ("Codec", describe_windows(record)),
    ]
    if record.dataset_fingerprint is not None:
        facts.append(("Trained on", record.dataset_fingerprint))
    return facts

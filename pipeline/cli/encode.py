"""The command that makes a dataset of shards: `encode`."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from shards import console
from shards.console import Json, SetOptions
from shards.errors import Interrupted


def encode(
    pairs: Annotated[Path, typer.Argument(metavar="PAIRS.jsonl", help="A file that `pair` made.")],
    out: Annotated[Path, typer.Option(help="The dataset's folder; it appears when all of it is there.")],
    codec: Annotated[Literal["encodec", "mdct"] | None, typer.Option(help="encodec unless set.")] = None,
    codec_weights: Annotated[Path | None, typer.Option(help="EnCodec's weights file.")] = None,
    codec_allow_unknown_weights: Annotated[
        bool, typer.Option("--codec-allow-unknown-weights", help="Take weights with another hash; it is recorded.")
    ] = False,
    latents: Annotated[
        Literal["float16", "float32", "codes"] | None,
        typer.Option(help="float16 unless set; codes are EnCodec's at 6 kbit/s, 50x smaller."),
    ] = None,
    audio: Annotated[
        Literal["none", "target", "both"] | None, typer.Option(help="Sides to store as FLAC, too; none unless set.")
    ] = None,
    max_reject_fraction: Annotated[float | None, typer.Option(help="Fail past this share of refused pairs.")] = None,
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray.")] = False,
    config: Annotated[str | None, typer.Option(help="A configuration's name or file.")] = None,
    set_: SetOptions = None,
    json: Json = False,
) -> None:
    """Encode pairs through the frozen codec into a dataset of shards; run again after a crash, it goes on."""
    from pipeline.config import CONFIGS, EncodeConfig
    from pipeline.encode import encode_dataset, encode_locally
    from pipeline.job import encode_with_ray
    from pipeline.pairing import read_pairs
    from shards.settings import find_config, load_settings

    options = {
        "codec.name": codec,
        "codec.weights": str(codec_weights) if codec_weights else None,
        "codec.allow_unknown_weights": codec_allow_unknown_weights or None,
        "output.latents": latents,
        "output.audio": audio,
        "max_reject_fraction": max_reject_fraction,
    }
    # As JSON, which is YAML, so that a path with ` #` in it or named `no` stays what it is.
    given = [f"{key}={jsonlib.dumps(value)}" for key, value in options.items() if value is not None]
    settings = load_settings(EncodeConfig, find_config(CONFIGS, config) if config else None, given + (set_ or []))
    plan = read_pairs(pairs)
    window = plan.header.window_samples / plan.header.sample_rate
    meter = _Meter(len(plan.pairs), window)
    with meter.bar, _stoppable():
        outcome = encode_dataset(plan, out, settings, encode_locally if local else encode_with_ray, meter.count)
    samples = sum(entry.samples for entry in outcome.manifest.splits.values())
    rejected = sum(outcome.manifest.rejected.values())
    if json:
        content = {"out": str(out), "samples": samples, "rejected": outcome.manifest.rejected}
        content |= {"encoded_shards": outcome.encoded_shards, "kept_shards": outcome.kept_shards}
        console.print_json(content | {"fingerprint": outcome.manifest.fingerprint})
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in outcome.manifest.rejected.items())
    console.out.print(
        f"{console.escape(str(out))}: {samples} pairs in {outcome.encoded_shards + outcome.kept_shards} shards "
        f"({outcome.kept_shards} kept from before), {rejected} refused{f' ({reasons})' if reasons else ''}",
        soft_wrap=True,
    )
    if rejected:
        listed = console.escape(str(out / "rejects.jsonl"))
        console.out.print(f"the refused pairs are listed in {listed}", soft_wrap=True)


@contextmanager
def _stoppable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("stopped; the same command keeps the finished shards and goes on") from None


class _Meter:
    """Progress over pairs: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, total: int, window_seconds: float) -> None:
        self.bar = console.progress("pairs")
        self._task = self.bar.add_task("encoding", total=total)
        self._total, self._window = total, window_seconds
        self._done = self._rejected = 0
        self._started = self._spoke = time.monotonic()

    def count(self, receipt: Any, shards: int) -> None:
        """Count a finished shard."""
        self._done += receipt.samples + len(receipt.rejected)
        self._rejected += len(receipt.rejected)
        elapsed = time.monotonic() - self._started
        hours = self._done * self._window / 3600
        note = f"{hours:.2f} h, {self._done * self._window * 2 / max(elapsed, 1e-9):.0f}x real time"
        note += f", {self._rejected} refused" if self._rejected else ""
        self.bar.update(self._task, completed=self._done, note=note)
        due = time.monotonic() - self._spoke > 10 or self._done == self._total
        if due and not console.err.is_terminal:
            self._spoke = time.monotonic()
            left = elapsed / self._done * (self._total - self._done)
            print(  # noqa: T201 - the console reporter
                f"encoded {self._done}/{self._total} pairs in {shards} shards, {note}, {left:.0f} s left",
                file=sys.stderr,
            )

"""`python -m pipeline`: synthesize, pair, encode."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline.pairing import Mode
from shards import console
from shards.console import Json, SetOptions
from shards.errors import Interrupted, MisuseError

app = console.make_app("From recordings to shards of latents.")


@app.command()
def synthesize(
    out_dir: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Where the WAV files go.")],
    pairs: Annotated[int, typer.Option(min=1, help="How many pairs.")] = 24,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of each, in seconds.")] = 16.0,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other music.")] = 0,
    json: Json = False,
) -> None:
    """Compose drum and piano recordings to try things on: OUT_DIR/{train,val}/pair_0000_{input,target}.wav."""
    from pipeline.synthesize import SAMPLE_RATE, split_of, synthesize_pair
    from shards.audio import write_wav

    names = {
        (index, side): out_dir / split_of(index, pairs) / f"pair_{index:04d}_{side}.wav"
        for index in range(pairs)
        for side in ("input", "target")
    }
    # Pairs of an earlier call with another count might lie in the other split: a leak that nobody would notice.
    strangers = sorted(set(out_dir.glob("*/*.wav")) - set(names.values()))
    if strangers:
        raise MisuseError(f"{strangers[0]}: is there already and not one of these pairs; choose another OUT_DIR")
    counts = {"train": 0, "val": 0}
    with console.progress("pairs") as bar:
        for index in bar.track(range(pairs), description="composing"):
            pair = synthesize_pair(seed, index, seconds)
            write_wav(names[index, "input"], pair.drums, SAMPLE_RATE)
            write_wav(names[index, "target"], pair.piano, SAMPLE_RATE)
            counts[split_of(index, pairs)] += 1
    if json:
        console.print_json({"out": str(out_dir), "pairs": counts, "seconds": seconds, "seed": seed})
        return
    console.out.print(
        f"{console.escape(str(out_dir))}: {counts['train']} train and {counts['val']} val pairs of {seconds:g} s",
        soft_wrap=True,
    )


@app.command()
def pair(
    source_dir: Annotated[Path, typer.Argument(metavar="SOURCE_DIR", help="A folder of recordings.")],
    out: Annotated[Path, typer.Option(help="The pairs file to write.")],
    mode: Annotated[Mode, typer.Option(help="By file name, or each window with the one after it.")],
    val_fraction: Annotated[float, typer.Option(min=0, max=0.9, help="Share of tracks held out.")] = 0.1,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a window.")] = 16.0,
    seed: Annotated[int, typer.Option(min=0, help="Draws the held-out tracks.")] = 0,
    skip_unusable: Annotated[
        bool, typer.Option("--skip-unusable", help="Leave out files that have no partner or can't be read.")
    ] = False,
    json: Json = False,
) -> None:
    """Decide which recordings go together; the result is text that one can read and edit."""
    from pipeline.pairing import make_pairs, write_pairs

    pairs, left_out = make_pairs(source_dir, mode, seconds, seed, val_fraction, skip_unusable)
    write_pairs(out, pairs)
    splits: dict[str, dict[str, Any]] = {}
    for split in sorted({p.split for p in pairs.pairs}):
        own = [p for p in pairs.pairs if p.split == split]
        splits[split] = {"pairs": len(own), "tracks": len({p.group for p in own}), "hours": len(own) * seconds / 3600}
    if json:
        console.print_json({"out": str(out), "splits": splits, "left_out": list(left_out)})
        return
    for message in left_out:
        console.err.print(f"[yellow]left out[/] {console.escape(message)}", soft_wrap=True)
    rows = [(split, s["pairs"], s["tracks"], f"{s['hours']:.3f}") for split, s in splits.items()]
    console.out.print(f"[bold]{console.escape(str(out))}[/]", soft_wrap=True)  # whole: a table folds its title
    console.table(("split", "pairs", "tracks", "hours"), rows)


@app.command()
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

"""The command that composes recordings to try things on: `synthesize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shards import console
from shards.console import Json
from shards.errors import MisuseError


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

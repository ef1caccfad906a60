"""Arguments that several verbs take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shards.store import local_path

DatasetAddress = Annotated[
    str, typer.Argument(metavar="DATASET", help="The dataset's folder, or its URL, as s3://bucket/dataset.")
]
DatasetFolder = Annotated[Path, typer.Argument(metavar="DATASET", parser=local_path, help="The dataset's folder.")]
SAMPLE_HELP = "A key or its start, shard#position, split:number, or a number."
SampleName = Annotated[str, typer.Argument(metavar="SAMPLE", help=SAMPLE_HELP)]
SampleNames = Annotated[list[str], typer.Argument(metavar="SAMPLE", help=SAMPLE_HELP)]
CodecWeights = Annotated[Path | None, typer.Option(help="EnCodec's weights file; else the hub cache, else a download.")]

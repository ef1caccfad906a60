"""Which recording goes with which: from a folder of audio to a list of pairs that a person can read and edit."""

from pipeline.pairing.make import make_pairs
from pipeline.pairing.pairs_file import read_pairs, write_pairs
from pipeline.pairing.records import (
    SAMPLE_RATE,
    Choose,
    Cut,
    Mode,
    ModeOptions,
    Pair,
    Pairs,
    PairsHeader,
    SourceFile,
)
from pipeline.pairing.sources import LeftOut
from pipeline.pairing.summary import summarize

__all__ = [
    "SAMPLE_RATE",
    "Choose",
    "Cut",
    "LeftOut",
    "Mode",
    "ModeOptions",
    "Pair",
    "Pairs",
    "PairsHeader",
    "SourceFile",
    "make_pairs",
    "read_pairs",
    "summarize",
    "write_pairs",
]

"""Synthetic training pairs: a drum recording for the rhythm, a piano recording for the harmony."""

from pipeline.synthesize.pairs import Pair, split_of, synthesize_pair
from pipeline.synthesize.signal import SAMPLE_RATE

__all__ = ["SAMPLE_RATE", "Pair", "split_of", "synthesize_pair"]

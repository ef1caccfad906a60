"""What ears hear in a piece: the input's onsets, the target's harmony. The door to librosa and mir_eval.

For orientation, on decoded drums and pianos of `pipeline synthesize` (12 pairs of 8 s, `mdct`; a track against itself
has 1):

| beside the source | onset F1 | chroma similarity |
|---|---|---|
| another track of the same instrument | 0.38 | 0.0, at most 0.35 |
| the pair's other source, in the same tempo in seven pairs of ten | 0.48 | 0.0, at most 0.3 |
| as many onsets at random | 0.32 | |
| half and half | 0.75 | 0.97 |
| the source 10 dB under the other one | 0.59 | 0.81 |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.audio import Samples, rms

INSTALL = "cascadence[music]"
ONSETS, CHROMA = ("onset_f1",), ("chroma_similarity_target", "chroma_similarity_input")
TOLERANCE = 0.05
"""Seconds that an onset may lie beside the one that it answers."""
SILENCE = 1e-4
"""RMS, -80 dB of full scale, under which nothing is heard."""
_ONSET_HOP = 256
_ONSET_RISE = 0.15
"""What an onset stands out by, of the strongest one. librosa's 0.07 hears faint ones, which are met by chance."""
_CHROMA_WINDOW, _CHROMA_HOP = 4096, 2048
_HIGHEST = 2200.0
"""Hz up to which chroma is heard: what lies above are overtones, many of them of other pitch classes."""
_MEDIAN = 13, 31
"""Frames and bins, 1.1 s and 180 Hz, that the filters look at which part harmony from percussion."""

Onsets = NDArray[np.float64]
Chroma = NDArray[np.float64]


@dataclass(frozen=True)
class Heard:
    """What is heard in a sound: onsets [k] in seconds, chroma [12, T]; None for what can't be heard."""

    onsets: Onsets | None = None
    chroma: Chroma | None = None


@dataclass(frozen=True)
class Ears:
    """The libraries that hear music, each None where it is not installed."""

    librosa: Any
    mir_eval: Any

    @property
    def missing(self) -> dict[str, tuple[str, ...]]:
        """The metrics that each missing library takes with it."""
        needed = {"librosa": ONSETS + CHROMA, "mir_eval": ONSETS}
        return {library: metrics for library, metrics in needed.items() if getattr(self, library) is None}

    @property
    def notes(self) -> list[str]:
        """Say what is missing, what goes with it, and what brings it: a line a library."""
        return [
            f"{library} is not installed: no {', '.join(metrics)}; install {INSTALL}"
            for library, metrics in self.missing.items()
        ]

    def hear(self, samples: Samples, sample_rate: int) -> Heard:
        """Hear mono audio [n]; nothing in silence, nor in less than 4096 samples."""
        if self.librosa is None or len(samples) < _CHROMA_WINDOW or rms(samples) < SILENCE:
            return Heard()
        return Heard(self._onsets(samples, sample_rate), self._chroma(samples, sample_rate))

    def compare(self, output: Heard, source: Heard, goal: Heard) -> dict[str, float]:
        """Compare what is heard in a piece and in its sources; what can't be heard in a source is left out."""
        found = {}
        if self.mir_eval is not None and source.onsets is not None and len(source.onsets):
            found["onset_f1"] = self._onset_f1(output.onsets, source.onsets)
        for metric, heard in zip(CHROMA, (goal, source), strict=True):
            if heard.chroma is not None:
                similarity = chroma_similarity(output.chroma, heard.chroma)
                found |= {metric: similarity} if similarity is not None else {}
        return found

    def _onsets(self, samples: Samples, sample_rate: int) -> Onsets:
        found: Onsets = self.librosa.onset.onset_detect(
            y=samples, sr=sample_rate, hop_length=_ONSET_HOP, delta=_ONSET_RISE, backtrack=False, units="time"
        )
        return found

    def _onset_f1(self, made: Onsets | None, wanted: Onsets) -> float:
        if made is None or not len(made):
            return 0.0
        return float(self.mir_eval.onset.f_measure(wanted, made, window=TOLERANCE)[0])

    def _chroma(self, samples: Samples, sample_rate: int) -> Chroma:
        """Magnitude of the harmonic part in each pitch class."""
        spectrum = np.abs(self.librosa.stft(samples, n_fft=_CHROMA_WINDOW, hop_length=_CHROMA_HOP))
        highest = round(_HIGHEST * _CHROMA_WINDOW / sample_rate)
        spectrum[highest:] = 0  # the filters of chroma want all bins
        harmonic, _ = self.librosa.decompose.hpss(spectrum[:highest], kernel_size=_MEDIAN)
        spectrum[:highest] = harmonic
        # One tuning for all: estimated, it would differ between a piece and its source, and turn one against the other.
        filters = self.librosa.filters.chroma(sr=sample_rate, n_fft=_CHROMA_WINDOW, tuning=0.0)
        classes: Chroma = filters @ np.square(spectrum, dtype=np.float64)
        return np.sqrt(classes)


def load_ears() -> Ears:
    """Load the libraries that are there."""
    return Ears(_librosa(), _mir_eval())


def chroma_similarity(made: Chroma | None, wanted: Chroma) -> float | None:
    """How alike two chroma [12, T] are: 1 the same, about 0 unrelated harmony; None where `wanted` is flat.

    The correlation of each frame's pitch classes, averaged over the frames by how much stands out in `wanted`; 0 for
    frames of `made` in which nothing does. Of the cosine, which is never negative here, unrelated pianos have 0.69.
    """
    wanted = wanted - wanted.mean(0)
    weight = np.linalg.norm(wanted, axis=0)
    if not weight.sum() > 0:
        return None
    if made is None:
        return 0.0
    made = made - made.mean(0)
    size = np.linalg.norm(made, axis=0)
    # Each frame's correlation times its weight: the weight itself is a factor of the correlation's denominator.
    weighted = (made * wanted).sum(0) / np.where(size > 0, size, 1)
    return float(weighted.sum() / weight.sum())


def _librosa() -> Any:
    try:
        import librosa.decompose
        import librosa.filters
        import librosa.onset
    except ImportError:
        return None
    return librosa


def _mir_eval() -> Any:
    try:
        import mir_eval.onset
    except ImportError:
        return None
    return mir_eval

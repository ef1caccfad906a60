"""What counts as success, metric by metric: the ranges of the seeds, and our own where we ask for something else.

The one place that knows them: tables, pages and JSON take titles, numbers as text and verdicts from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from shards.schema import SIDES

Verdict = Literal["success", "short"]
Origin = Literal["ours", "seeds"]

COMPONENTS = tuple(f"{side}_{kind}" for side in SIDES for kind in ("rhythm", "harmony", "timbre"))
"""As the compositional agent names them; here again, because tables and pages do without torch."""
WANTED_COMPONENTS = ("input_rhythm", "target_harmony")
"""The preference that makes sense: the input is there for its rhythm, the target for its harmony."""
CLEAR = 0.2
"""Weight that a preferred component of six has at least, and the others at most (the seeds' "under 0.2")."""


@dataclass(frozen=True)
class Range:
    """Values that count as success, the bounds among them; None is no bound."""

    low: float | None = None
    high: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value lies within; a value that is no number does not."""
        return (
            (-float("inf") if self.low is None else self.low)
            <= value
            <= (float("inf") if self.high is None else self.high)
        )


@dataclass(frozen=True)
class Criterion:
    """How one metric is called, written and judged.

    `seeds` is the range in which the seeds saw success, `ours` another one that we ask for instead. A value counts as
    wholly short at the ends of `extremes`. `unit` is `share` for what people read in percent, or one to write behind
    the number. What is not `of_pair` says something of many pairs together, and nothing of one.
    """

    title: str
    seeds: Range | None = None
    ours: Range | None = None
    unit: Literal["", "share", "dB"] = ""
    digits: int = 2
    extremes: tuple[float, float] = (0.0, 1.0)
    of_pair: bool = True

    @property
    def range(self) -> Range | None:
        """The range that counts: ours where there is one."""
        return self.seeds if self.ours is None else self.ours

    @property
    def origin(self) -> Origin | None:
        """Whose range counts; None where there is none."""
        if self.range is None:
            return None
        return "seeds" if self.ours is None else "ours"

    @property
    def range_text(self) -> str | None:
        """The range that counts, for people; None where any value will do."""
        return None if self.range is None else self._describe(self.range)

    @property
    def seeds_text(self) -> str | None:
        """The range of the seeds, for people; None where they name none."""
        return None if self.seeds is None else self._describe(self.seeds)

    def text(self, value: float) -> str:
        """Write a value for people, with its unit."""
        return self.number(value) + {"": "", "share": " %", "dB": " dB"}[self.unit]

    def number(self, value: float) -> str:
        """Write a value for people, without its unit."""
        rounded = round(100 * value if self.unit == "share" else value, self.digits) + 0.0  # no minus before a zero
        return f"{rounded:.{self.digits}f}"

    def judge(self, value: float) -> Verdict | None:
        """Say whether a value is a success; None where any value will do."""
        if self.range is None:
            return None
        return "success" if self.range.holds(value) else "short"

    def shortfall(self, value: float) -> float:
        """How far a value lies outside the range: 0 within, 1 at an extreme or beyond. 0 where any value will do."""
        if self.range is None or self.range.holds(value):
            return 0.0
        lowest, highest = self.extremes
        low, high = self.range.low, self.range.high
        if low is not None and value < low:
            return min(1.0, (low - value) / (low - lowest))
        if high is not None and value > high:
            return min(1.0, (value - high) / (highest - high))
        return 1.0  # no number

    def _describe(self, wanted: Range) -> str:
        if wanted.low is None:
            return f"{self.text(wanted.high or 0.0)} or less"
        if wanted.high is None:
            return f"{self.text(wanted.low)} or more"
        return f"{self.text(wanted.low)} to {self.text(wanted.high)}"


def judge(name: str, value: float) -> Verdict | None:
    """Judge a metric by its name; None for one without a range, or without a criterion."""
    criterion = CRITERIA.get(name)
    return None if criterion is None else criterion.judge(value)


def _masks() -> Iterator[tuple[str, Criterion]]:
    # 0.75 is what masks have that have learnt nothing.
    wanted = Range(low=0.90), Range(low=0.95)
    yield "complementarity", Criterion("complementarity of the masks", *wanted, digits=3, extremes=(0.75, 1.0))
    for side in SIDES:
        yield f"{side}_mask_mean", Criterion(f"mean of the {side}'s mask", Range(0.48, 0.52), digits=3)
    yield "mask_overlap", Criterion("overlap of the masks", digits=3)
    yield "mask_change", Criterion("variance of the masks over time", Range(low=0.05), digits=3)
    yield "dominance_correlation", Criterion("masks follow the louder source", None, Range(low=0.3))
    yield (
        "content_share",
        Criterion("variance of the masks by content", ours=Range(low=0.5), unit="share", digits=0, of_pair=False),
    )
    for part in ("pattern", "channel", "position"):
        yield f"{part}_share", Criterion(f"variance of the masks by {part}", unit="share", digits=0, of_pair=False)


def _components() -> Iterator[tuple[str, Criterion]]:
    yield "novelty", Criterion("novelty: likeness of the composed pattern", Range(0.02, 0.10), digits=3)
    for name in COMPONENTS:
        wanted = Range(low=CLEAR) if name in WANTED_COMPONENTS else Range(high=CLEAR)
        side, kind = name.split("_")
        yield f"{name}_weight", Criterion(f"weight of the {side}'s {kind}", None, wanted)
    # One of six at 0.5 and the others alike has 0.84: the seeds' "clear preference (over 0.5 or under 0.2)".
    yield "component_entropy", Criterion("evenness of the components (entropy)", None, Range(high=0.85))


def _music() -> Iterator[tuple[str, Criterion]]:
    yield "onset_f1", Criterion("onsets of the input kept (F1)", None, Range(low=0.6))
    yield "rhythm_correlation_input", Criterion("rhythm correlation with the input", Range(low=0.3))
    yield "rhythm_correlation_target", Criterion("rhythm correlation with the target")
    title = "rhythm balance, input over target"
    yield "rhythm_balance", Criterion(title, Range(0.8, 1.2), extremes=(0.0, 2.0), of_pair=False)
    yield "chroma_similarity_target", Criterion("chroma similarity to the target", None, Range(low=0.7))
    yield "chroma_similarity_input", Criterion("chroma similarity to the input")
    for side in SIDES:
        envelope = Range(0.3, 0.5), Range(0.2, 0.6)
        yield f"envelope_correlation_{side}", Criterion(f"envelope correlation with the {side}", *envelope)
    for side in SIDES:
        title = f"waveform correlation with the {side}"
        yield f"waveform_correlation_{side}", Criterion(title, None, Range(-0.6, 0.6), extremes=(-1.0, 1.0))
    yield "rms_ratio", Criterion("RMS over that of the sources", Range(0.9, 1.1), extremes=(0.0, 2.0))
    for side in SIDES:
        yield f"spectral_distance_{side}", Criterion(f"spectral distance from the {side}", unit="dB", digits=1)


def _discriminator() -> Iterator[tuple[str, Criterion]]:
    for kind, wanted in (("real", Range(0.6, 0.8)), ("fake", Range(0.4, 0.6))):
        title = f"discriminator right about {kind} music"
        yield f"discriminator_{kind}_accuracy", Criterion(title, wanted, None, "share", 0, of_pair=False)


CRITERIA: Mapping[str, Criterion] = dict([*_music(), *_masks(), *_components(), *_discriminator()])
"""Every metric of an evaluation by its name, in the order in which people see them."""

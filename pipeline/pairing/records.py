"""What a pairs file holds: a header with what was asked for, the sources, and the pairs. Light, for there are many."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, SkipValidation, model_serializer

from shards.schema import Record, SideName

Mode = Literal["suffix", "continuation", "cross"]
Choose = Literal["seeded", "tempo", "random"]
SAMPLE_RATE: Final = 24_000

# A path stands in every pair of its track: kept once, a million pairs take a third of the memory.
Interned = Annotated[str, AfterValidator(sys.intern)]


class ModeOptions(Record):
    """What only some modes ask for; None where it does not apply."""

    max_per_track: int | None = Field(None, ge=1, description="pairs of a track, at most; in `cross` with each partner")
    inputs: str | None = Field(None, description="`cross`: folder or pattern of the input tracks")
    targets: str | None = Field(None, description="`cross`: folder or pattern of the target tracks")
    partners: int | None = Field(None, ge=1, description="`cross`: targets that each input track gets")
    choose: Choose | None = Field(None, description="`cross`: how the partners are found")


class PairsHeader(ModeOptions):
    """The first line of a pairs file."""

    format: Literal["cascadence-pairs"] = "cascadence-pairs"
    version: Literal[2] = 2
    mode: Mode
    root: str
    window_samples: int = Field(gt=0)
    sample_rate: Literal[24_000] = SAMPLE_RATE
    seed: int
    val_fraction: float
    pairs_sha256: str

    @model_serializer(mode="wrap")
    def _what_applies_the_mode_s_own_last(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content = {key: value for key, value in serialize(self).items() if value is not None}
        return {key: content[key] for key in sorted(content, key=ModeOptions.model_fields.__contains__)}


class SourceFile(NamedTuple):
    """A recording that pairs are cut from, as it was when they were made; `source` is its path below the root."""

    source: Interned
    sha256: str
    sample_rate: Annotated[int, Field(gt=0)]
    channels: Annotated[int, Field(gt=0)]
    seconds: Annotated[float, Field(ge=0)]


class Cut(NamedTuple):
    """A window of one file: it starts at sample `start`, at the header's sample rate."""

    path: Interned
    start: Annotated[int, Field(ge=0)]


class Pair(NamedTuple):
    """An input window and the target window that goes with it.

    `group` names what is tied together by pairs or by equal recordings: no group lies in two splits.
    """

    split: Annotated[str, Field(pattern=r"^\w[\w-]*$", description="names a folder")]
    group: Interned
    input: Cut
    target: Cut

    @property
    def sides(self) -> tuple[tuple[SideName, Cut], tuple[SideName, Cut]]:
        """Both windows, by side."""
        return ("input", self.input), ("target", self.target)

    def as_json(self) -> dict[str, Any]:
        """Give the pair as its line in a pairs file holds it."""
        return {
            "split": self.split,
            "group": self.group,
            "input": {"path": self.input.path, "start": self.input.start},
            "target": {"path": self.target.path, "start": self.target.start},
        }


class Pairs(Record):
    """A pairs file, read. Its lines were checked one by one."""

    header: PairsHeader
    files: SkipValidation[tuple[SourceFile, ...]] = ()
    pairs: SkipValidation[tuple[Pair, ...]]

    @property
    def sources(self) -> Mapping[str, str]:
        """SHA-256 of each listed source, by its path; a person may have added pairs of others."""
        return {file.source: file.sha256 for file in self.files}

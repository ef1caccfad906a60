"""The errors that a person meets: one line that names the thing and the mend."""

import re
from pathlib import Path

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Show what would end the line, steer a terminal or be no text as an escape: it may come from anybody's file."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class CascadenceError(Exception):
    """A failure that a person can mend; the command-line tools print its text and exit with 1."""

    exit_code = 1


class MisuseError(CascadenceError):
    """A command or a setting used wrongly; the command-line tools exit with 2."""

    exit_code = 2


class Interrupted(CascadenceError):
    """A person (130: Ctrl-C) or a scheduler (143: SIGTERM) stopped the work; what was finished is kept."""

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ConfigError(MisuseError):
    """A configuration with an unknown key, a wrong value or sections that contradict each other."""


class CodecError(CascadenceError):
    """A codec that can't be loaded, or latents and audio that don't fit the codec."""


class DatasetError(CascadenceError):
    """A dataset that is missing, incomplete, damaged or made for something else."""


class DamageError(DatasetError):
    """A file of a dataset that is not what it should be: which one, what is wrong with it, and the mend."""

    def __init__(self, file: Path, what: str, mend: str) -> None:
        super().__init__(file, what, mend)
        self.file, self.what, self.mend = file, what, mend

    def __str__(self) -> str:
        return f"{self.file}: {self.what}; {self.mend}"

"""What the tests of the files for clusters share: reading them, damaging them, and rules that hold for all."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
GONE = object()
"""In place of a value: the key is taken away."""

_SECRETS = re.compile(
    r"AKIA[0-9A-Z]{16}|aws_secret_access_key|(?i:token|password|secret|key)\s*[=:]\s*['\"]?[A-Za-z0-9+/_-]{16,}"
    r"|-----BEGIN|\b[0-9a-f]{32,}\b|://[^/\s:]+:[^/\s@]+@"
)


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def pinned(package: str) -> str:
    """The version of a package in constraints.txt."""
    found = re.search(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def image_version(image: str) -> str | None:
    """The Ray version in an image's tag, where the tag also names the Python of this project."""
    found = re.search(r":(\d+\.\d+\.\d+)-py311(-[a-z0-9]+)?$", image)
    return found[1] if found else None


def damaged(content: Any, place: Sequence[str | int], value: Any) -> Any:
    """A copy with another value at `place`, or without the key there where `value` is GONE."""
    content = copy.deepcopy(content)  # aliases of YAML stay one object in it
    inner = content
    for key in place[:-1]:
        inner[key] = copy.copy(inner[key])  # so that a damage to one user of an alias leaves the others whole
        inner = inner[key]
    if value is GONE:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return content


def strings(content: Any) -> Iterator[str]:
    """All texts in a document."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from strings(value)
            if isinstance(value, str):
                yield f"{key}: {value}"
    elif isinstance(content, list):
        for value in content:
            yield from strings(value)


def secrets(content: Any) -> list[str]:
    """The texts in a document that look like secrets."""
    return [text for text in strings(content) if _SECRETS.search(text)]

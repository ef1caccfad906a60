"""Configuration: a typed, frozen tree from a YAML file and `--set a.b=c`, with unknown keys refused by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict

from shards.errors import ConfigError


class Settings(BaseModel):
    """A section of the configuration: frozen, and it refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


S = TypeVar("S", bound=Settings)


def load_settings(kind: type[S], file: Path | None, overrides: Sequence[str] = ()) -> S:
    """Build settings from defaults, then a YAML file, then `key=value` overrides.

    Raises `ConfigError`, naming the file or option, the key and the nearest known key.
    """
    content: dict[str, Any] = {}
    if file is not None:
        content = _read_yaml(file)
        check_keys(kind, content, str(file))
    for override in overrides:
        key, value = _parse_override(override)
        patch: dict[str, Any] = {}
        _assign(patch, key, value)
        check_keys(kind, patch, f"--set {override}")
        _assign(content, key, value)
    return validate(kind, content, str(file) if file else "configuration")


def validate(kind: type[S], content: object, source: str) -> S:
    """Validate plain content. Raises `ConfigError`, with the key, in one line."""
    try:
        return kind.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the sections together"
        message = first["msg"].removeprefix("Value error, ")
        given = "" if first["type"] == "value_error" and not first["loc"] else f" (given: {first['input']!r})"
        raise ConfigError(f"{source}: {key}: {message}{given if len(given) < 100 else ''}") from None


def find_config(folder: Path, name: str) -> Path:
    """Resolve a configuration's name in a package's `configs/`, or a file. Raises `ConfigError` with the choices."""
    for path in (folder / f"{name}.yaml", Path(name)):
        if path.is_file():
            return path
    choices = sorted(path.stem for path in folder.glob("*.yaml"))
    raise ConfigError(f"--config {name}: neither a file nor one of: {', '.join(choices)}{_suggest(name, choices)}")


def dump_yaml(settings: Settings) -> str:
    """Write the resolved settings as YAML, in the order in which they are declared."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def check_keys(kind: type[BaseModel], content: dict[str, Any], source: str) -> None:
    """Raise `ConfigError` for the first unknown key, with the nearest known one."""
    known = set(known_keys(kind))
    for key in _leaves(kind, content):
        if key not in known:
            raise ConfigError(f"{source}: unknown key {key!r}{_suggest(key, known)}")


def known_keys(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Give every key of a settings class, sections and leaves, dotted."""
    for name, field in kind.model_fields.items():
        yield prefix + name
        if section := _section(field.annotation):
            yield from known_keys(section, f"{prefix}{name}.")


def _leaves(kind: type[BaseModel] | None, content: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in content.items():
        yield f"{prefix}{name}"
        field = kind.model_fields.get(name) if kind else None
        section = _section(field.annotation) if field else None
        if section and isinstance(value, dict):
            yield from _leaves(section, value, f"{prefix}{name}.")


def _section(annotation: object) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _suggest(key: str, known: Iterable[str]) -> str:
    choices = sorted(known)
    last = key.rpartition(".")[2]
    # The same name in another section is nearer than another name in the same section.
    near = [k for k in choices if k.rpartition(".")[2] == last][:1]
    near = near or difflib.get_close_matches(key, choices, n=1, cutoff=0.5)
    if not near:
        near = [k for k in choices if difflib.get_close_matches(last, [k.rpartition(".")[2]], cutoff=0.6)][:1]
    return f"; did you mean {near[0]!r}?" if near else ""


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: there is no such configuration file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: a configuration is a mapping of sections, not {type(content).__name__}")
    return content


def _parse_override(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: write it as --set section.key=value")
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError:
        return key, text


def _assign(content: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = content.get(section)
        content[section] = inner if isinstance(inner, dict) else {}
        content = content[section]
    content[last] = value

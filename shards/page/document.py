"""One HTML file with everything in it, safe against whatever names and texts it shows. The door to Jinja2."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

SHARED = "shards.page"


def set_page(package: str, **content: object) -> str:
    """Set the page of a package: its `page.html.jinja`, which fills the shared layout, its `page.css` and `page.js`.

    The same content always gives the same text.
    """
    templates = {name: _resource(SHARED, name) for name in ("layout.html.jinja", "parts.html.jinja")}
    templates["page.html.jinja"] = _resource(package, "page.html.jinja")
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, loader=DictLoader(templates)
    )
    environment.filters.update(count=count, uri=data_uri, megabytes=megabytes)
    style = _resource(SHARED, "base.css") + _resource(package, "page.css")
    script = _resource(SHARED, "theme.js") + _resource(package, "page.js")
    return environment.get_template("page.html.jinja").render(
        style=Markup(style),  # noqa: S704 - the project's own files
        script=Markup(script),  # noqa: S704 - the project's own files
        policy=_policy(style, script),
        **content,
    )


def count(value: int) -> str:
    """Write a whole number, in groups of three digits."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def megabytes(value: int) -> str:
    """Write a size."""
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"


def data_uri(content: bytes, kind: str) -> str:
    """Put a file into an address of its own."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _resource(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Allow exactly this style sheet, this script and data inside the page: a browser fetches nothing else."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'sha256-{hashes[0]}'; "
        f"script-src 'sha256-{hashes[1]}'; base-uri 'none'; form-action 'none'"
    )

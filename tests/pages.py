"""Pages for people: parsed, held to what every page must be, and opened in a real browser."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

VOID = {"meta", "link", "img", "br", "input"}
CHROMIUM = shutil.which("chromium")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDTHS = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"


@dataclass
class Page(HTMLParser):
    """A parsed page: its elements, its text, and the elements left open."""

    html: str
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in {"script", "style"}:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def content_of(uri: str, kind: str) -> bytes:
    head, _, body = uri.partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(body, validate=True)


def assert_self_contained(page: Page) -> None:
    assert page.open == []
    for _tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "poster", "data", "xlink:href"):
            assert attributes.get(name, "#").startswith(("data:", "#"))
        assert not any(name.startswith("on") for name in attributes)
        assert "style" not in attributes, "the policy refuses style attributes"
    assert re.search(r"https?:", page.html) is None
    assert "@import" not in page.html
    assert "url(" not in page.html


def assert_policy(page: Page) -> None:
    """Assert that the page's policy allows its own style sheet and script, and nothing else."""
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert "default-src 'none'" in policy
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page.html, re.DOTALL)
        assert base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() in policy


def start_browser(profile: Path) -> Iterator[Any]:
    """Give a browser, and end it; skips the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: `apt-get install chromium` brings it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, headless=True, args=list(ARGUMENTS)
        )
        yield context
        context.close()


@dataclass
class Watched:
    """What a page has said to its console and asked of the network."""

    address: str
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def assert_quiet(self) -> None:
        """Assert that it said nothing, and asked for nothing but itself and what it holds."""
        assert self.said == []
        assert {url for url in self.asked if not url.startswith("data:")} == {self.address}


def open_page(browser: Any, file: Path, before: str | None = None) -> tuple[Any, Watched]:
    """Open a file in light colours; `before` is a script that runs ahead of the page's own."""
    page = browser.new_page()
    watched = Watched(file.as_uri())
    page.on("console", lambda message: watched.said.append(message.text))
    page.on("pageerror", lambda error: watched.said.append(str(error)))
    page.on("dialog", lambda dialog: (watched.said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: watched.asked.append(request.url))
    page.emulate_media(color_scheme="light")
    if before is not None:
        page.add_init_script(before)
    page.goto(file.as_uri())
    return page, watched


def assert_fits(page: Any) -> None:
    """Assert that the page needs no scrolling sideways, from a phone's width on."""
    for width in (320, 390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 844})
        scrolled, seen = page.evaluate(WIDTHS)
        assert scrolled <= seen, f"the page is wider than {width} pixels"

"""`python -m shards report`: what the page holds, that nothing in it escapes, and that a browser can play it."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from make_data import MDCT, flip_byte, make_dataset, make_header, make_receipt, make_sample
from pages import Page, assert_fits, assert_policy, assert_self_contained, content_of, open_page, start_browser

from shards.cli.app import app
from shards.codec import load_codec
from shards.console import run
from shards.dataset import open_dataset
from shards.manifest import partial_folder
from shards.page.charts import ticks
from shards.publish import publish
from shards.report import charts
from shards.report.collect import Measured, choose, correlation
from shards.report.images import heatmap
from shards.report.players import PLAYER_BYTES, make_player
from shards.report.salvage import open_damaged, spread
from shards.schema import Reject

ROOT = Path(__file__).parent.parent
SHARD = "train/tiny-v1-train-000001.tar"
HOSTILE = "<script>alert(1)</script>"
HOSTILE_NAME = 'set"><img src=x onerror=alert(1)>'


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def report(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    with pytest.raises(SystemExit) as exited:
        run(app, "shards", ["report", *map(str, arguments)])
    captured = capsys.readouterr()
    assert isinstance(exited.value.code, int)
    return Outcome(exited.value.code, *captured)


def make_page(capsys: pytest.CaptureFixture[str], dataset: Path, out: Path, *arguments: object, code: int = 0) -> Page:
    outcome = report(capsys, dataset, "--out", out, *arguments)
    assert outcome.code == code, outcome.err
    return Page(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("report") / "tiny-v1")


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    return shutil.copytree(dataset, tmp_path / "copy")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose every name tries to become markup."""
    folder = tmp_path_factory.mktemp("hostile") / HOSTILE_NAME
    samples = [make_sample(number, group=HOSTILE) for number in range(3)]
    receipt = make_receipt(partial_folder(folder), "train/shard-000000.tar", samples)
    refused = Reject(input=HOSTILE, target="&amp;<b>", side="pair", reason="<i>silent</i>", detail="'\"><u>")
    receipt = receipt.model_copy(update={"rejected": (refused,)})
    receipts = folder.with_name(folder.name + ".partial") / "receipts"
    receipts.mkdir()
    (receipts / "shard-000000.tar.json").write_text(receipt.model_dump_json(), encoding="utf-8")
    publish(folder, make_header(HOSTILE_NAME), [receipt])
    return folder


# What the page holds


def test_the_page_says_what_the_dataset_is(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = make_page(capsys, dataset, tmp_path / "page.html")
    manifest = open_dataset(dataset).manifest
    shards = [shard.file for entry in manifest.splits.values() for shard in entry.shards]
    for part in ("tiny-v1", "27 pairs", "mdct", manifest.fingerprint, "Sound", "train", "val", "cascadence", *shards):
        assert part in page.text
    assert [tag for tag, _ in page.elements if tag in {"h1", "main", "nav"}] == ["nav", "main", "h1"]
    assert page.all("html") == [{"lang": "en"}]


def test_nothing_is_fetched_from_elsewhere(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = make_page(capsys, dataset, tmp_path / "page.html")
    assert_self_contained(page)
    assert_policy(page)


def test_the_gallery_has_players_pictures_and_keys(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = make_page(capsys, dataset, tmp_path / "page.html", "--samples", "5")
    keys = [button["data-copy"] for button in page.all("button") if "data-copy" in button]
    assert len(keys) == len(set(keys)) == 5
    opened, codec = open_dataset(dataset), load_codec("mdct")
    sounds = [content_of(audio["src"], "audio/flac") for audio in page.all("audio")]
    assert len(sounds) == 10
    assert all("controls" in audio and audio["aria-label"] for audio in page.all("audio"))
    for number, key in enumerate(keys):
        sample = opened.read(opened.locate(key))
        assert key in page.text
        assert sample.record.input.path in page.text
        assert sample.record.target.path in page.text
        for side, latents in enumerate((sample.input, sample.target)):
            heard, rate = soundfile.read(io.BytesIO(sounds[2 * number + side]), dtype="float32")
            expected = codec.decode(torch.from_numpy(latents.astype(np.float32))[None])[0, 0].numpy().clip(-1, 1)
            assert rate == 24_000
            assert np.abs(heard - expected).max() < 1e-4
    pictures = page.all("img")
    assert len(pictures) == 10
    assert all(content_of(img["src"], "image/png").startswith(b"\x89PNG") and img["alt"] for img in pictures)
    drawn = page.all("svg")
    assert len(drawn) >= 10 + 4 + 3 - 1  # the tests' envelopes are constant and have no correlation
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in drawn)


def test_the_same_dataset_gives_the_same_page(
    dataset: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make_page(capsys, dataset, tmp_path / "first.html")
    second = make_page(capsys, copy, tmp_path / "second.html")
    assert first.html == second.html
    assert str(tmp_path) not in second.html


def test_json_says_what_was_written(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "page.html"
    outcome = report(capsys, dataset, "--out", out, "--samples", "3", "--json")
    assert json.loads(outcome.out) == {"out": str(out), "bytes": out.stat().st_size, "samples": 3, "ok": True}


def test_names_stay_text(hostile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = make_page(capsys, hostile, tmp_path / "page.html")
    assert_self_contained(page)
    assert len(page.all("script")) == 1
    assert {"u", "img"} & {tag for tag, _ in page.elements} == {"img"}
    assert all(img["src"].startswith("data:image/png") for img in page.all("img"))
    for name in (HOSTILE, f"{HOSTILE}_input.wav", HOSTILE_NAME, "<i>silent</i>", "&amp;<b>", "'\"><u>"):
        assert name in page.text
    assert f"<title>{HOSTILE_NAME}" not in page.html


def test_a_page_without_a_gallery_needs_no_torch(dataset: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom shards.cli.app import app\nfrom shards.console import run\n"
        f"try:\n    run(app, 'shards', ['report', {str(dataset)!r}, '--out', {str(tmp_path / 'page.html')!r}, "
        "'--samples', '0'])\nexcept SystemExit as done:\n    assert done.code == 0\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.all("audio") == page.all("img") == []
    assert "Listen" not in page.text


def test_without_its_codec_the_page_is_silent_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_dataset(tmp_path / "other", {"train": (3,)}, codec=MDCT.model_copy(update={"dim": 64}))
    out = tmp_path / "page.html"
    outcome = report(capsys, other, "--out", out, "--json")
    assert (outcome.code, json.loads(outcome.out)["ok"]) == (0, True)
    assert "without sound: other: was made with mdct, the codec found here is mdct" in outcome.err
    page = Page(out.read_text(encoding="utf-8"))
    assert page.all("audio") == []
    assert len(page.all("img")) == 6
    assert "No players: the codec mdct was not at hand" in page.text


def test_weights_that_are_given_must_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_dataset(tmp_path / "other", {"train": (3,)}, codec=MDCT.model_copy(update={"dim": 64}))
    out = tmp_path / "page.html"
    outcome = report(capsys, other, "--out", out, "--codec-weights", tmp_path / "weights.th")
    assert (outcome.code, outcome.out) == (1, "")
    assert "--codec-weights" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not out.exists()


# Damage


def test_a_flipped_byte_is_named_and_the_rest_is_shown(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = open_dataset(copy).locate(f"{SHARD}#4")
    flip_byte(copy / SHARD, int(open_dataset(copy).index("train")[14]["input_offset"]) + 500)
    page = make_page(capsys, copy, tmp_path / "page.html", "--samples", "27", code=1)
    assert_self_contained(page)
    assert f"{SHARD} sample {place.key}" in page.text
    assert "its crc32 is not the index's" in page.text
    assert "restore the shard from a copy" in page.text
    assert "Sound: nothing wrong" not in page.text
    assert f"This pair can't be shown: {SHARD}: input of sample {place.key}" in page.text
    assert len(page.all("audio")) == 2 * 26
    assert str(tmp_path) not in page.html


def test_a_missing_shard_leaves_the_others(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / SHARD).unlink()
    page = make_page(capsys, copy, tmp_path / "page.html", code=1)
    assert "the shard is missing" in page.text
    assert "10 samples could not be read" in page.text
    assert len(page.all("audio")) == 16


@pytest.mark.parametrize("damage", ["missing", "changed", "no array"])
def test_a_lost_index_is_rebuilt_for_the_page(
    damage: str, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = copy / "index" / "train.npy"
    if damage == "missing":
        index.unlink()
    elif damage == "changed":
        flip_byte(index, 400)
    else:
        index.write_bytes(b"nothing")
    page = make_page(capsys, copy, tmp_path / "page.html", code=1)
    assert "index/train.npy" in page.text
    assert len(page.all("audio")) == 16
    assert "could not be read" not in page.text


def test_lost_index_and_cut_shard_give_what_is_left(copy: Path, tmp_path: Path) -> None:
    (copy / "index" / "train.npy").unlink()
    shard = copy / SHARD
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    found = open_damaged(copy).places(100)
    assert 27 - 6 <= len(found) < 27
    assert len({place.key for place in found}) == len(found)


@pytest.mark.parametrize("content", [None, "no json", "[]", '{"input": {"mean": [1]}, "target": {}}'])
def test_lost_statistics_are_said(
    content: str | None, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "stats.json").unlink()
    if content is not None:
        (copy / "stats.json").write_text(content, encoding="utf-8")
    page = make_page(capsys, copy, tmp_path / "page.html", "--samples", "0", code=int(content is None))
    assert "stats.json is missing or damaged" in page.text


def test_every_shard_lost_still_gives_a_page(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for shard in copy.rglob("*.tar"):
        shard.write_bytes(b"")
    page = make_page(capsys, copy, tmp_path / "page.html", code=1)
    assert "No sample's record could be read" in page.text
    assert page.all("audio") == []


@pytest.mark.parametrize(
    ("out", "code", "said"),
    [("copy/page.html", 2, "datasets are immutable"), (".", 2, "is a folder")],
)
def test_a_wrong_place_for_the_page_is_refused(
    out: str, code: int, said: str, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = report(capsys, copy, "--out", tmp_path / out)
    assert (outcome.code, outcome.out) == (code, "")
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_no_dataset_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = report(capsys, tmp_path / "none", "--out", tmp_path / "page.html")
    assert outcome.code == 1
    assert "there is no such dataset" in outcome.err
    assert not (tmp_path / "page.html").exists()


# The parts


def test_the_gallery_spreads_and_holds_the_extremes(dataset: Path) -> None:
    places = open_damaged(dataset).places(100)
    levels = [0.1] * 27
    levels[3], levels[20] = 0.01, 0.9
    found = [
        Measured(place, {"input": v, "target": 0.1}, {}, {}, None) for place, v in zip(places, levels, strict=True)
    ]
    chosen = choose(found, 8)
    assert len(chosen) == 8
    assert [(place, why) for place, why in chosen if why] == [(places[3], ("quietest",)), (places[20], ("loudest",))]
    assert {place.split for place, _ in chosen} == {"train", "val"}
    assert [len(choose(found, n)) for n in (0, 1, 2, 27, 100)] == [0, 1, 2, 27, 27]
    assert choose(found[:1], 8) == [(places[0], ("quietest", "loudest"))]


def test_spread_is_even() -> None:
    assert spread(10, 3) == [1, 4, 8]
    assert spread(3, 10) == [0, 1, 2]
    assert spread(10, 0) == spread(0, 4) == []


def test_correlation_of_envelopes() -> None:
    wave = [0.1, 0.5, 0.2, 0.9]
    assert correlation(wave, [2 * v for v in wave]) == pytest.approx(1)
    assert correlation(wave, [1 - v for v in wave]) == pytest.approx(-1)
    assert correlation(wave, [0.5] * 4) is None
    assert correlation(wave, [0.1, float("nan"), 0, 1]) is None


@pytest.mark.parametrize("values", [[0.5], [-3.0] * 9, [0.0, 1e-12], [1e6, 2e6], list(np.linspace(-60, 0, 99))])
def test_a_histogram_counts_every_value(values: list[float]) -> None:
    svg = Page(str(charts.histogram({"input": values, "target": values}, "dB", 'a "label"')))
    counts = [int(title.rpartition(": ")[2]) for title in re.findall(r"<title>(.*?)</title>", svg.html)]
    assert sum(counts) == 2 * len(values)
    assert "nan" not in svg.html
    assert svg.all("svg")[0]["aria-label"] == 'a "label"'


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-61.3, -3.2), (73.1, 73.9), (0, 4), (1e5, 3e5), (-1e-4, 1e-4)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert 3 <= len(marks) <= 7
    assert all(low <= mark <= high for mark in marks)


def test_a_heatmap_survives_values_that_are_not_finite() -> None:
    latents = np.random.default_rng(0).standard_normal((128, 1200)).astype(np.float16)
    whole = heatmap(latents, "input", signed=True)
    latents[3, 7] = np.nan
    latents[5, 9] = np.inf
    for signed in (True, False):
        assert heatmap(latents, "target", signed=signed).startswith(b"\x89PNG")
    assert 16 * 4 / 3 * (len(whole) + PLAYER_BYTES) < 9.7e6, "eight pairs stay under 10 MB"
    assert heatmap(np.zeros((4, 3), np.float16), "input", signed=False).startswith(b"\x89PNG")


def test_a_long_sound_is_cut_to_fit() -> None:
    noise = np.random.default_rng(0).uniform(-1.2, 1.2, 16 * 24_000).astype(np.float32)
    player = make_player(noise, 24_000)
    assert len(player.flac) <= PLAYER_BYTES
    assert player.cut
    assert player.seconds == int(player.seconds) >= 6
    heard, _ = soundfile.read(io.BytesIO(player.flac), dtype="float32")
    assert len(heard) == player.seconds * 24_000
    quiet = make_player(0.01 * noise[:24_000], 24_000)
    assert (quiet.cut, quiet.seconds) == (False, 1.0)


# In a browser

DURATIONS = """() => Promise.all([...document.querySelectorAll("audio")].map((audio) => new Promise((done) => {
  if (audio.readyState >= 1) done(audio.duration);
  audio.addEventListener("loadedmetadata", () => done(audio.duration));
  audio.addEventListener("error", () => done(-1));
})))"""
PAPER = "() => getComputedStyle(document.body).backgroundColor"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    yield from start_browser(tmp_path / "profile")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sound", "hostile", "damaged"])
def test_in_a_browser(
    kind: str,
    browser: Any,
    dataset: Path,
    hostile: Path,
    copy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flip_byte(copy / SHARD, 3000)
    source = {"sound": dataset, "hostile": hostile, "damaged": copy}[kind]
    out = tmp_path / "page.html"
    make_page(capsys, source, out, "--samples", "4", code=int(kind == "damaged"))

    page, watched = open_page(browser, out)

    durations = page.evaluate(DURATIONS)
    assert len(durations) == (6 if kind == "hostile" else 8)
    assert durations == pytest.approx([40 * 320 / 24_000] * len(durations), abs=0.01)
    assert page.evaluate("() => [...document.images].every((image) => image.naturalWidth === 40)")

    toggle = page.get_by_role("button", name="theme")
    light = page.evaluate(PAPER)
    toggle.focus()
    page.keyboard.press("Enter")
    dark = page.evaluate(PAPER)
    assert dark != light
    assert toggle.get_attribute("aria-pressed") == "true"
    for _ in range(3):  # on a busy machine a browser writes its storage down late
        page.reload()
        if page.evaluate(PAPER) == dark:
            break
    assert page.evaluate(PAPER) == dark, "the choice is kept"
    toggle.click()
    assert page.evaluate(PAPER) == light

    both = page.get_by_role("button", name="Play both").first
    both.click()
    page.wait_for_function("() => [...document.querySelectorAll('audio')].slice(0, 2).every((a) => a.currentTime > 0)")
    page.get_by_role("button", name="Copy the key").first.click()
    page.wait_for_function("() => document.getElementById('status').textContent.startsWith('Key ')")

    assert_fits(page)
    watched.assert_quiet()

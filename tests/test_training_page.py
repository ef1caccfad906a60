"""Listening pages and run reports: what they hold, that nothing in them escapes, and that a browser can play them."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from command import Outcome, assert_one_line, run_training
from make_data import MDCT, make_dataset
from pages import Page, assert_fits, assert_policy, assert_self_contained, content_of, open_page, start_browser
from small_training import SMALL, launch

from shards.audio import Samples, write_wav
from shards.settings import load_settings
from training.checkpoint import CheckpointRecord, open_checkpoint, save_checkpoint
from training.config import Config
from training.criteria import COMPONENTS, CRITERIA
from training.events import METRICS, append_event, read_events
from training.generate import Piece
from training.health import RULES
from training.page.curves import gather, training_figures
from training.page.listening import write_listening_page
from training.page.views import FLAC_BYTES, LONGEST_SECONDS, view_piece
from training.pieces import SavedPiece, read_piece
from training.state import new_state

RATE = 24_000
SECONDS = 6.0
HOSTILE = "<img src=x onerror=alert(1)>"


def music(seed: int, seconds: float = SECONDS, level: float = 0.2) -> Samples:
    """A few soft notes."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    notes = [
        np.sin(2 * np.pi * (100 + 900 * pitch) * time) * np.exp(-4 * ((time * 2 + delay) % 1))
        for pitch, delay in rng.uniform(0, 1, (3, 2))
    ]
    return (level * np.mean(notes, 0)).astype(np.float32)


def checkpoint(path: Path, *overrides: str) -> Path:
    """A checkpoint of a small model that has learnt nothing, in a run's folder."""
    config = load_settings(Config, None, [*SMALL, *overrides])
    state = new_state(config, 128, torch.device("cpu"))
    record = CheckpointRecord(
        codec=MDCT, dataset_fingerprint="f" * 64, frames=75, progress=state.progress.as_json(), metrics={}
    )
    save_checkpoint(path, state, config, record)
    return path


def generated(folder: Path, name: str, *overrides: str) -> Path:
    """Make a piece of two recordings, whose names try to become markup."""
    for side, seed in ((f"{HOSTILE}.wav", 1), ("piano & 'more'.wav", 2)):
        write_wav(folder / side, music(seed), RATE)
    made_by = checkpoint(folder / name / "checkpoints" / "best", *overrides)
    files = ("--input", folder / f"{HOSTILE}.wav", "--target", folder / "piano & 'more'.wav")
    done = run_training("generate", "--checkpoint", made_by, *files, "--out", folder / f"{name}-out", "--json")
    assert done.code == 0, done.err
    assert done.json["page"] == str(folder / f"{name}-out" / "listen.html")
    return folder / f"{name}-out"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `generate` has made, with masks."""
    return generated(tmp_path_factory.mktemp("masks"), "run")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs with pieces of two pairs. Not to be spoiled."""
    folder = tmp_path_factory.mktemp("trained")
    settings = (
        "train.epochs=3",
        "tracking.samples=2",
        "tracking.sample_epochs=3",
        "tracking.store=sqlite:////secret/db",
    )
    dataset = make_dataset(folder / "tiny", {"train": [8], "val": [2]}, 150)
    done = launch(dataset, folder / "a run", *settings)
    assert done.code in {0, 1}, done.err  # three epochs of noise may end unwell
    return folder / "a run"


def report(run_dir: Path, page: Path) -> tuple[Outcome, Page]:
    done = run_training("report", run_dir, "--out", page, "--json")
    assert done.code == 0, done.err
    return done, Page(page.read_text(encoding="utf-8"))


# What the pages hold


def test_a_piece_can_be_heard_seen_and_judged(out: Path) -> None:
    page = Page((out / "listen.html").read_text(encoding="utf-8"))
    assert_self_contained(page)
    assert_policy(page)
    (article,) = page.all("article")
    assert float(article["data-seconds"]) == SECONDS
    players = page.all("audio")
    assert [player["aria-label"].partition(" of ")[0] for player in players] == ["Input", "Target", "Output"]
    for player, name in zip(players, ("input", "target", "output"), strict=True):
        embedded, rate = soundfile.read(io.BytesIO(content_of(player["src"], "audio/flac")), dtype="float32")
        written, _ = soundfile.read(out / "piece_000" / f"{name}.wav", dtype="float32")
        assert rate == RATE
        assert np.abs(embedded - written).max() < 1.01 / 2**15
    pictures = page.all("img")
    assert [img["alt"].partition(" ")[0] for img in pictures] == ["Spectrogram"] * 3 + ["Which"]
    assert all(content_of(img["src"], "image/png").startswith(b"\x89PNG") for img in pictures)
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))
    metrics = json.loads((out / "piece_000" / "metrics.json").read_text())
    shown = [name for name in CRITERIA if name in metrics]
    assert len(shown) >= 5
    for name in shown:
        criterion = CRITERIA[name]
        assert criterion.title in page.text
        assert criterion.text(metrics[name]) in page.text
        assert criterion.range_text is None or criterion.range_text in page.text
    verdicts = [CRITERIA[name].judge(metrics[name]) for name in shown]
    for verdict in ("success", "short"):
        cells = [div for div in page.all("div") if div.get("class") == verdict]
        assert len(cells) == verdicts.count(verdict)  # type: ignore[arg-type]


def test_names_of_recordings_stay_text(out: Path) -> None:
    page = Page((out / "listen.html").read_text(encoding="utf-8"))
    for name in (f"{HOSTILE}.wav", "piano & 'more'.wav", f"{HOSTILE} with piano & 'more'"):
        assert name in page.text
    assert len(page.all("script")) == 1
    assert str(out.parent) not in page.html, "a page tells nothing of the machine"
    assert "run, best: epoch 0" in page.text


def test_another_agent_shows_its_components(tmp_path: Path) -> None:
    page = Page((generated(tmp_path, "other", "model.agent=compositional") / "listen.html").read_text(encoding="utf-8"))
    assert_self_contained(page)
    stacks = [polygon["class"] for polygon in page.all("polygon") if polygon["class"].startswith("stack ")]
    assert stacks == [f"stack {name.replace('_', ' ')}" for name in COMPONENTS]
    with np.load(tmp_path / "other-out" / "piece_000" / "components.npz", allow_pickle=False) as stored:
        total = sum(stored[name].astype(np.float32) for name in stored.files)
    np.testing.assert_allclose(total, 1, atol=5e-3)
    for name in ("input rhythm", "target timbre"):
        assert name in page.text


def test_a_page_of_many_pieces_counts_those_that_it_leaves_out(out: Path, tmp_path: Path) -> None:
    made_by = open_checkpoint(out.parent / "run" / "checkpoints" / "best")
    write_listening_page(tmp_path / "page.html", [out / "piece_000"] * 14, made_by)
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(page.all("article")) == 12
    assert "2 more pieces lie beside this page" in page.text


def saved(audio: dict[str, Samples], rate: int = RATE, **decisions: Any) -> SavedPiece:
    return SavedPiece(Piece("made", audio, {}, **decisions), rate)


def test_a_large_piece_is_embedded_small_and_stays_in_step() -> None:
    rng = np.random.default_rng(0)
    noise = {name: rng.uniform(-0.3, 0.3, 30 * RATE).astype(np.float32) for name in ("input", "target", "output")}
    view = view_piece(saved(noise), "here")
    assert view.kind == "audio/ogg"
    for track in view.tracks:
        heard, rate = soundfile.read(io.BytesIO(track.sound), dtype="float32")
        assert (rate, len(heard)) == (RATE, 30 * RATE), "to the sample: all three must stay in step"
        assert len(track.sound) < FLAC_BYTES / 2
        low = np.abs(np.fft.rfft(heard))[: 30 * 1_000] / np.abs(np.fft.rfft(noise[track.name]))[: 30 * 1_000].mean()
        assert 0.7 < low.mean() < 1.3


def test_of_a_very_long_piece_the_beginning_is_shown() -> None:
    rate = 1_000
    audio = {name: np.zeros(rate * (LONGEST_SECONDS * 2), np.float32) for name in ("input", "target", "output")}
    for samples in audio.values():
        samples[rate * LONGEST_SECONDS :] = 0.5
    mask = np.concatenate([np.zeros((4, 50), np.float32), np.ones((4, 50), np.float32)], 1)
    view = view_piece(saved(audio, rate, masks={"input": mask, "target": mask}), "here")
    assert (view.seconds, view.whole_seconds) == (LONGEST_SECONDS, 2 * LONGEST_SECONDS)
    assert {text for _, text in view.decisions[0].legend} == {"input 0%", "target 0%"}
    heard, _ = soundfile.read(io.BytesIO(view.tracks[0].sound))
    assert np.abs(heard).max() < 0.01
    assert len(heard) == LONGEST_SECONDS * rate


@pytest.mark.parametrize("damage", ["metrics.json", "output.wav", "masks.npz"])
def test_a_damaged_piece_is_named(damage: str, out: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(out / "piece_000", tmp_path / "copy")
    (copy / damage).write_bytes(b"nothing")
    with pytest.raises(Exception, match="copy: no whole piece"):
        read_piece(copy)


# A run


def test_a_run_is_told_whole(run_dir: Path, tmp_path: Path) -> None:
    done, page = report(run_dir, tmp_path / "page.html")
    assert_self_contained(page)
    assert_policy(page)
    assert len(page.all("article")) == done.json["pieces"] == 2
    assert len(page.all("audio")) == 6
    assert "a run" in page.text
    assert "Epoch 3 of 3, ended" in page.text
    assert "epoch 3" in page.text
    for rule in RULES:
        assert rule.name in page.text
    for name in ("best", "last", "tiny", "8 train", "2 val", "mdct"):
        assert name in page.text
    for title in ("Loss", "Complementarity of the masks", "Envelope correlation with the sources", "Gradient norm"):
        assert title in page.text
    for setting in ("learning_rate: 0.0001", "sample_epochs: 3", "coupling: independent"):
        assert setting in page.text
    assert "/secret/db" not in page.html, "a store's address may hold a password"
    assert str(tmp_path) not in page.html
    assert str(run_dir.parent) not in page.html


def test_a_run_that_has_just_begun_has_a_page(run_dir: Path, tmp_path: Path) -> None:
    young = tmp_path / "young"
    young.mkdir()
    shutil.copy(run_dir / "config.yaml", young)
    events = [event for event, _ in read_events(run_dir / METRICS)]
    for count in (1, 3):
        for event in events[:count]:
            append_event(young / METRICS, event)
        (young / METRICS).open("ab").write(b'{"event": "tra')  # a line that is being written
        done, page = report(young, tmp_path / "page.html")
        assert done.json["pieces"] == 0
        assert "not ended" in page.text
        assert "No pieces yet" in page.text
        (young / METRICS).unlink()
    assert "Gradient norm" in page.text


def test_a_piece_that_cannot_be_read_is_left_out_and_said(run_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run_dir, tmp_path / "copy")
    broken = min((copy / "samples" / "epoch_0003").glob("0*"))
    (broken / "output.wav").unlink()
    done, page = report(copy, tmp_path / "page.html")
    assert len(page.all("article")) == 1
    assert f"epoch_0003/{broken.name}: no whole piece" in page.text
    assert done.err.startswith(f"left out: epoch_0003/{broken.name}: no whole piece")


def test_the_page_lies_in_the_run_unless_told_otherwise(run_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run_dir, tmp_path / "copy")
    done = run_training("report", copy)
    assert done.code == 0, done.err
    assert (copy / "report.html").is_file()
    assert done.out.startswith(f"{copy / 'report.html'}: 2 pieces")


def test_misuse_of_report_gets_one_line(run_dir: Path, tmp_path: Path) -> None:
    assert_one_line(run_training("report", tmp_path / "none"), 2, "there is no such run")
    assert_one_line(run_training("report", tmp_path), 2, "holds no metrics.jsonl")
    assert_one_line(run_training("report", run_dir, "--out", tmp_path), 2, "is a folder; name the page")


def line(step: int, norm: float) -> dict[str, Any]:
    return {"event": "train", "step": step, "epoch": 0, "time": 0.0, "gradient/norm": norm, "loss/total": None}


def test_what_was_told_twice_counts_once(run_dir: Path) -> None:
    start = {"event": "start", "step": 0, "epoch": 0, "time": 0.0, "steps_per_epoch": 4}
    events = [start, line(1, 1.0), line(2, 9.0), line(3, 9.0), line(2, 2.0), line(3, 3.0), line(4, 4.0)]
    assert gather(events) == {"gradient/norm": [(0.25, 1.0), (0.5, 2.0), (0.75, 3.0), (1.0, 4.0)]}


def test_a_curve_of_many_points_keeps_its_shape_and_one_of_none_is_not_drawn() -> None:
    assert training_figures([]) == []
    many = [line(step, float(step)) for step in range(1, 5_001)]
    (figure,) = training_figures([{"event": "start", "step": 0, "epoch": 0, "steps_per_epoch": 1}, *many])
    assert figure.title == "Gradient norm"
    assert "mean 5" in figure.notes[0][1]
    (points,) = (polyline["points"].split() for polyline in Page(str(figure.svg)).all("polyline"))
    assert len(points) == 300
    heights = [float(point.partition(",")[2]) for point in points]
    assert heights == sorted(heights, reverse=True)


# In a browser

WATCH = """
window.starts = []; window.gains = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when, offset) {
  window.starts.push([when, offset, this.buffer.length]);
  return start.call(this, when, offset);
};
const createGain = BaseAudioContext.prototype.createGain;
BaseAudioContext.prototype.createGain = function () {
  const node = createGain.call(this);
  window.gains.push(node);
  return node;
};
"""
NO_WEB_AUDIO = "delete window.AudioContext;"
POSITION = "() => Number(document.querySelector('.seek').value)"
LOUD = "() => window.gains.map((node) => Math.round(node.gain.value * 100) / 100)"
PRESSED = "() => [...document.querySelectorAll('.choice')].slice(0, 3).map((b) => b.getAttribute('aria-pressed'))"
PAPER = "() => getComputedStyle(document.body).backgroundColor"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    yield from start_browser(tmp_path / "profile")


@pytest.mark.slow
def test_in_a_browser_a_piece_plays_switches_and_seeks(browser: Any, out: Path) -> None:
    page, watched = open_page(browser, out / "listen.html", WATCH)
    assert page.evaluate(PRESSED) == ["false", "false", "true"], "first of all one hears what was made"
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(f"() => ({POSITION})() > 0.05")
    starts = page.evaluate("() => window.starts")
    assert len(starts) == 3
    assert len({tuple(start) for start in starts}) == 1, "all three begin at one time, at one place, and are as long"
    page.wait_for_function(f"() => String(({LOUD})()) === '0,0,1'")

    before = page.evaluate(POSITION)
    page.get_by_role("button", name="Input").click()
    page.wait_for_function(f"() => String(({LOUD})()) === '1,0,0'")
    assert page.evaluate(PRESSED) == ["true", "false", "false"]
    assert page.evaluate("() => window.starts.length") == 3, "switching starts nothing anew"
    assert before <= page.evaluate(POSITION) < SECONDS
    assert page.locator(".lane.heard").get_attribute("class") == "lane input heard"

    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Play").wait_for()
    strip = page.locator(".lane.target .spectrum")
    box = strip.bounding_box()
    strip.click(position={"x": box["width"] * 0.75, "y": 5})
    assert page.evaluate(POSITION) == pytest.approx(0.75 * SECONDS, abs=0.02)
    cursor = page.locator(".cursor").bounding_box()
    assert cursor["x"] + cursor["width"] / 2 == pytest.approx(box["x"] + 0.75 * box["width"], abs=2)
    assert cursor["height"] > 300, "it runs over all strips"
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => window.starts.length === 6")
    assert page.evaluate("() => window.starts[5][1]") == pytest.approx(0.75 * SECONDS, abs=0.02)
    page.get_by_role("button", name="Play").wait_for(timeout=10_000)  # it comes to its end by itself
    assert page.evaluate(POSITION) == pytest.approx(SECONDS, abs=0.01)
    assert_fits(page)
    watched.assert_quiet()


@pytest.mark.slow
def test_in_a_browser_the_keyboard_does_all(browser: Any, out: Path) -> None:
    page, watched = open_page(browser, out / "listen.html", WATCH)
    page.keyboard.press("ArrowRight")
    assert page.evaluate(POSITION) == pytest.approx(1.0, abs=0.02)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(POSITION) == 0
    for key, number in (("1", 0), ("2", 1), ("3", 2)):
        page.keyboard.press(key)
        assert page.evaluate(PRESSED).index("true") == number
    page.keyboard.press("Space")
    page.wait_for_function("() => window.starts.length === 3")
    page.keyboard.press("2")
    page.wait_for_function(f"() => String(({LOUD})()) === '0,1,0'")
    page.keyboard.press("Space")
    page.get_by_role("button", name="Play").wait_for()

    page.get_by_role("button", name="Output").focus()
    outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("Enter")
    assert outline == "solid", "one sees where the keyboard is"
    assert page.evaluate(PRESSED).index("true") == 2
    seek = page.get_by_role("slider", name="Position")
    seek.focus()
    page.keyboard.press("End")
    assert seek.get_attribute("aria-valuetext") == "0:06.0 of 0:06.0"
    watched.assert_quiet()


@pytest.mark.slow
def test_in_a_browser_without_web_audio_the_players_stay_in_step(browser: Any, out: Path) -> None:
    page, watched = open_page(browser, out / "listen.html", NO_WEB_AUDIO)
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(f"() => ({POSITION})() > 0.05")
    page.keyboard.press("1")
    muted = page.evaluate("() => [...document.querySelectorAll('.sound')].map((sound) => sound.muted)")
    assert muted == [False, True, True]
    page.get_by_role("button", name="Pause").click()
    places = page.evaluate("() => [...document.querySelectorAll('.sound')].map((sound) => sound.currentTime)")
    assert max(places) - min(places) < 0.3
    watched.assert_quiet()


@pytest.mark.slow
def test_in_a_browser_a_run_is_shown_and_one_piece_plays_at_a_time(browser: Any, run_dir: Path, tmp_path: Path) -> None:
    report(run_dir, tmp_path / "page.html")
    page, watched = open_page(browser, tmp_path / "page.html")
    light = page.evaluate(PAPER)
    page.get_by_role("button", name="theme").click()
    assert page.evaluate(PAPER) != light
    assert page.evaluate("() => [...document.images].every((image) => image.naturalWidth > 0)")
    playing = "() => [...document.querySelectorAll('.piece')].map((piece) => piece.classList.contains('playing'))"
    plays = page.locator(".play")
    plays.nth(0).click()
    page.wait_for_function(f"() => ({playing})()[0] || !!document.getElementById('status').textContent")
    plays.nth(1).click()
    page.wait_for_function(f"() => ({playing})()[1] || !!document.getElementById('status').textContent")
    assert page.evaluate(playing)[0] is False
    assert page.locator("#status").text_content() == ""
    page.get_by_text("The resolved configuration").click()
    assert page.locator("pre").is_visible()
    assert_fits(page)
    watched.assert_quiet()

"""The tables of `make results`: what stands in them, and that the text around them stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.outcome import BASELINES, BEGIN, END, METRICS, Outcome, draw, write_tables


def outcome(onset_f1: float, *, norm: float = 3.0, skipped: float = 0.0) -> Outcome:
    """A training of two epochs, in each a step and a judgement, and what was measured of it."""
    metrics: dict[str, Any] = {"onset_f1": {"mean": onset_f1}, "chroma_similarity_target": {"mean": 0.5}}
    metrics |= {f"envelope_correlation_{side}": {"mean": 0.4} for side in ("input", "target")}
    events: list[dict[str, Any]] = []
    for epoch in (0, 1):
        step = {"gradient/norm_max": norm + 100 * (1 - epoch), "health/skipped": skipped}
        events.append({"event": "train", "epoch": epoch, "step": epoch + 1, "time": 90.0 * epoch, **step})
        events.append({"event": "epoch", "epoch": epoch, "time": 90.0 * epoch + 30, "val/loss/onsets": 0.5})
    return Outcome({"metrics": metrics, "baselines": dict.fromkeys(BASELINES, metrics)}, events)


def test_tables_replace_what_stands_between_their_marks(tmp_path: Path) -> None:
    document = tmp_path / "results.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    groups = {"one": [outcome(0.5), outcome(0.8, norm=4)], "other": [outcome(0.3, skipped=1.0)]}
    for _ in range(2):  # the second time in place of the first
        write_tables(document, groups, {"[0, 1]": outcome(0.9)}, [{"input": "results/1-input.mp3"}])
    text = document.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "old" not in text
    assert text.count(BEGIN) == text.count("| held-out pairs |") == 1
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| onsets of the input kept")]
    means = ["**0.65 (0.50 to 0.80)**", "0.30", "0.50", "0.50", "0.50 |"]
    assert rows == [["| onsets of the input kept (F1)", "0.60 or more", *means]]
    assert "| one | 2, 2 | 0 | 3.0, 4.0 | 3.0, 4.0 |" in text, "the first epoch warms up"
    assert "| other | 2 | 2 | 3.0 | 3.0 |" in text
    assert "| pair 1 | [input](results/1-input.mp3) |" in text
    assert all(len(line.split(" | ")) == 2 + len(groups) + len(BASELINES) for line in _first_table(text))
    assert len(_first_table(text)) == 2 + len(METRICS)


def test_the_figure_has_a_curve_for_each_kind_of_training(tmp_path: Path) -> None:
    draw(tmp_path / "new" / "one.svg", {"musical": [outcome(0.5)]}, {"[0, 1]": outcome(0.9)})
    groups = {"musical": [outcome(0.5), outcome(0.8)], "other": [outcome(0.3)]}
    draw(tmp_path / "new" / "two.svg", groups, {"[0, 1]": outcome(0.9)})
    one, two = ((tmp_path / "new" / name).read_text(encoding="utf-8") for name in ("one.svg", "two.svg"))
    assert one.startswith("<?xml")
    assert two.count("stroke: #") > one.count("stroke: #")


def _first_table(text: str) -> list[str]:
    lines = text.partition(BEGIN)[2].strip().splitlines()
    return lines[: lines.index("")]

"""`training evaluate`: a model measured over a split, beside baselines of which it is known what they come to."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Outcome, assert_one_line, run_training
from make_data import CODES, MDCT, make_dataset
from small_training import ALONE, CPU, launch, make_spoilt_dataset, small_config

from shards import console, open_dataset
from training.checkpoint import CheckpointRecord, save_checkpoint
from training.criteria import CRITERIA
from training.evaluation import BASELINES, choose
from training.evaluation.summary import estimate
from training.models.compositional_agent import COMPONENTS
from training.state import new_state

FRAMES = 75
PAIRS = 5
LIKENESS = {
    f"{kind}_{side}"
    for kind in ("rhythm_correlation", "envelope_correlation", "waveform_correlation", "spectral_distance")
    for side in ("input", "target")
} | {"rms_ratio", "rhythm_balance"}
MASKS = {
    *("complementarity", "input_mask_mean", "target_mask_mean", "mask_overlap", "mask_change"),
    *("dominance_correlation", "pattern_share", "channel_share", "position_share", "content_share"),
}
MUSIC = {"onset_f1", "chroma_similarity_target", "chroma_similarity_input"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "ds", {"train": [4], "val": [3, 2]}, FRAMES)


@pytest.fixture(scope="module")
def checkpoint(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masking agent and a discriminator, trained for an epoch."""
    run_dir = tmp_path_factory.mktemp("masking")
    done = launch(dataset, run_dir, "train.epochs=1", "losses.gan=0.1")
    assert done.code == 0, done.err
    return run_dir / "checkpoints" / "last"


def untrained(path: Path, *settings: str) -> Path:
    """A checkpoint of a model that has learnt nothing."""
    config = small_config(*settings)
    state = new_state(config, 128, CPU)
    record = CheckpointRecord(
        codec=MDCT, dataset_fingerprint=None, frames=FRAMES, progress=state.progress.as_json(), metrics={}
    )
    save_checkpoint(path, state, config, record)
    return path


def evaluate(checkpoint: Path, dataset: Path, *more: object) -> Outcome:
    return run_training("evaluate", "--checkpoint", checkpoint, "--shards", dataset, "--device", "cpu", *more)


@pytest.fixture(scope="module")
def measured(checkpoint: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is written with `--out`, the numbers of every pair among it."""
    pytest.importorskip("librosa")
    pytest.importorskip("mir_eval")
    out = tmp_path_factory.mktemp("out") / "evaluation.json"
    done = evaluate(checkpoint, dataset, "--out", out, "--json")
    assert done.code == 0, done.err
    document: dict[str, Any] = json.loads(out.read_text())
    assert done.json == {name: value for name, value in document.items() if name != "every_pair"}
    return document


def mean(document: dict[str, Any], column: str, metric: str) -> float:
    metrics = document["metrics"] if column == "model" else document["baselines"][column]
    return float(metrics[metric]["mean"])


def test_every_metric_has_a_mean_an_interval_and_a_verdict(
    measured: dict[str, Any], checkpoint: Path, dataset: Path
) -> None:
    assert (measured["checkpoint"], measured["dataset"]) == (str(checkpoint), str(dataset))
    assert (measured["split"], measured["pairs"], measured["missing"]) == ("val", PAIRS, [])
    accuracies = {f"discriminator_{kind}_accuracy" for kind in ("real", "fake")}
    assert measured["metrics"].keys() == LIKENESS | MASKS | MUSIC | accuracies
    for name, found in measured["metrics"].items():
        criterion = CRITERIA[name]
        assert math.isfinite(found["mean"])
        assert found["verdict"] == criterion.judge(found["mean"])
        assert (found["range"] is None) == (criterion.range is None)
        if criterion.range is not None:
            assert (found["range"]["low"], found["range"]["high"]) == (criterion.range.low, criterion.range.high)
            assert found["range"]["origin"] == criterion.origin
        if not name.endswith("_share"):
            assert found["low"] - 1e-9 <= found["mean"] <= found["high"] + 1e-9
            assert found["pairs"] == PAIRS


def test_means_are_those_of_the_pairs(measured: dict[str, Any]) -> None:
    pairs = measured["every_pair"]
    assert len(pairs) == PAIRS
    for column in ("model", *BASELINES):
        for name in pairs[0]["columns"][column]:
            values = [pair["columns"][column][name] for pair in pairs]
            assert mean(measured, column, name) == pytest.approx(np.mean(values))


def test_baselines_come_to_what_is_known_of_them(measured: dict[str, Any]) -> None:
    assert measured["baselines"].keys() == BASELINES.keys()
    for side in ("input", "target"):
        copy = f"copy_{side}"
        for metric in ("waveform_correlation", "envelope_correlation", "rhythm_correlation", "chroma_similarity"):
            assert mean(measured, copy, f"{metric}_{side}") == pytest.approx(1, abs=1e-3)
        assert mean(measured, copy, f"spectral_distance_{side}") == 0
        # Noise of equal level, each half of the mix's energy.
        assert mean(measured, "mix", f"waveform_correlation_{side}") == pytest.approx(math.sqrt(0.5), abs=0.02)
    assert mean(measured, "copy_input", "onset_f1") == 1
    assert mean(measured, "mix", "rms_ratio") == pytest.approx(1, abs=0.03)
    assert MASKS.isdisjoint(measured["baselines"]["mix"])


def test_masks_without_music_are_found_out(measured: dict[str, Any]) -> None:
    assert mean(measured, "fixed_pattern", "complementarity") == 1
    assert mean(measured, "fixed_pattern", "channel_share") == pytest.approx(1)
    assert mean(measured, "fixed_pattern", "content_share") == pytest.approx(0, abs=1e-9)
    # The mean of m (1 - m) for uniform m is 1/6.
    assert mean(measured, "random_masks", "complementarity") == pytest.approx(5 / 6, abs=0.01)
    assert mean(measured, "random_masks", "content_share") > 0.95, "which differ with the pair, yet not with its music"
    for column in ("fixed_pattern", "random_masks"):
        assert abs(mean(measured, column, "dominance_correlation")) < 0.03
        assert mean(measured, column, "input_mask_mean") == pytest.approx(0.5, abs=0.01)


def test_the_worst_pairs_are_named_with_what_they_lack(measured: dict[str, Any], dataset: Path) -> None:
    keys = {row["key"].decode() for row in open_dataset(dataset).index("val")}
    worst = measured["worst"]
    assert len(worst) == 5, "noise has no music in it"
    assert {one["keys"]["input"] for one in worst} == keys
    lacks = [one["shortfall"] for one in worst]
    assert lacks == sorted(lacks, reverse=True)
    by_key = {pair["keys"]["input"]: pair["columns"]["model"] for pair in measured["every_pair"]}
    for one in worst:
        assert one["shortfall"] == pytest.approx(sum(fault["shortfall"] for fault in one["faults"]))
        assert one["files"]["input"].endswith("_input.wav")
        for fault in one["faults"]:
            assert fault["value"] == by_key[one["keys"]["input"]][fault["metric"]]
            assert CRITERIA[fault["metric"]].judge(fault["value"]) == "short"


def test_the_same_evaluation_gives_the_same_numbers_in_batches_of_any_size(
    measured: dict[str, Any], checkpoint: Path, dataset: Path
) -> None:
    again = evaluate(checkpoint, dataset, "--json").json
    assert again == {name: value for name, value in measured.items() if name != "every_pair"}
    singly = evaluate(checkpoint, dataset, "--batch-size", 1, "--json").json
    for name, found in singly["metrics"].items():
        assert found["mean"] == pytest.approx(mean(measured, "model", name), abs=2e-4), name


def test_people_get_a_table_with_verdicts_and_the_baselines_beside(
    checkpoint: Path, dataset: Path, measured: dict[str, Any]
) -> None:
    done = evaluate(checkpoint, dataset)
    assert done.code == 0
    lines = [line.strip() for line in done.out.splitlines()]
    for title in BASELINES.values():
        assert title in lines[1]
    (row,) = (line for line in lines if line.startswith("complementarity"))
    assert CRITERIA["complementarity"].text(mean(measured, "model", "complementarity")) in row
    assert "short" in row
    assert "0.950 or more (seeds: 0.900 or more)" in row
    assert "1.000" in row, "the fixed pattern's"
    (where,) = (place for place, line in enumerate(lines) if line.startswith("worst pairs"))
    assert lines[where + 1].startswith(measured["worst"][0]["keys"]["input"][:12])


def test_where_there_is_no_room_the_baselines_get_a_table_of_their_own(
    checkpoint: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.out, "width", 120)
    lines = [line.split() for line in evaluate(checkpoint, dataset).out.splitlines()]
    headings = [line for line in lines if line[:2] == ["metric", "model"]]
    assert [line[-1] for line in headings] == ["wanted", "pattern"]


def test_strict_fails_where_a_criterion_is_short(checkpoint: Path, dataset: Path) -> None:
    done = evaluate(checkpoint, dataset, "--strict", "--json")
    assert done.code == 1
    assert done.json["metrics"]["complementarity"]["verdict"] == "short"


def test_a_composition_is_measured_by_its_components(dataset: Path, tmp_path: Path) -> None:
    found = evaluate(untrained(tmp_path / "best", "model.agent=compositional"), dataset, "--json").json["metrics"]
    assert {"novelty", "component_entropy", *(f"{name}_weight" for name in COMPONENTS)} <= found.keys()
    assert sum(found[f"{name}_weight"]["mean"] for name in COMPONENTS) == pytest.approx(1)
    assert 0 < found["component_entropy"]["mean"] <= 1
    assert found["input_rhythm_weight"]["range"]["low"] == 0.2
    assert found["input_rhythm_energy"]["range"] is None
    assert MASKS.isdisjoint(found)


def test_a_model_without_agent_is_measured_by_its_sound(dataset: Path, tmp_path: Path) -> None:
    found = evaluate(untrained(tmp_path / "best", *ALONE), dataset, "--json").json["metrics"]
    assert found.keys() - MUSIC == LIKENESS


def test_shuffled_targets_are_those_of_other_pairs(checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation.json"
    assert evaluate(checkpoint, dataset, "--shuffle-targets", "--out", out, "--json").code == 0
    keys = [pair["keys"] for pair in json.loads(out.read_text())["every_pair"]]
    assert all(key["input"] != key["target"] for key in keys)
    assert {key["input"] for key in keys} == {key["target"] for key in keys}
    assert len({key["target"] for key in keys}) == PAIRS
    opened = open_dataset(dataset)
    assert choose(opened, "val", shuffle=0) != choose(opened, "val", shuffle=1)


def test_a_count_takes_pairs_from_all_over_the_split(dataset: Path) -> None:
    opened = open_dataset(dataset)
    assert [choice.input for choice in choose(opened, "val", 2)] == [0, 2]
    assert [choice.input for choice in choose(opened, "val", 99)] == list(range(PAIRS))


def test_of_one_pair_it_is_said_what_needs_more(checkpoint: Path, dataset: Path) -> None:
    done = evaluate(checkpoint, dataset, "--count", 1, "--json")
    assert done.code == 0
    assert "one pair: no confidence intervals, and no shares of the masks' variance" in done.err
    found = done.json["metrics"]
    assert (found["complementarity"]["low"], found["complementarity"]["high"]) == (None, None)
    assert "content_share" not in found


@pytest.mark.parametrize(("library", "gone"), [("librosa", MUSIC), ("mir_eval", {"onset_f1"})])
def test_a_missing_library_is_named_and_the_rest_is_measured(
    checkpoint: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, library: str, gone: set[str]
) -> None:
    monkeypatch.setitem(sys.modules, f"{library}.onset", None)
    done = evaluate(checkpoint, dataset, "--json")
    assert done.code == 0, done.err
    (line,) = (line for line in done.err.splitlines() if "not installed" in line)
    assert line.startswith(f"{library} is not installed: no onset_f1")
    assert line.endswith("; install cascadence[music]")
    (missing,) = done.json["missing"]
    assert (missing["library"], set(missing["metrics"])) == (library, gone)
    assert gone.isdisjoint(done.json["metrics"])
    assert done.json["metrics"].keys() >= LIKENESS | MASKS | (MUSIC - gone)


def test_a_silent_source_is_said_and_nothing_is_no_number(checkpoint: Path, tmp_path: Path) -> None:
    silent = make_spoilt_dataset(tmp_path / "silent", 4, [4], 0.0, ["input"])
    done = evaluate(checkpoint, silent, "--json")
    assert done.code == 0, done.err
    assert "1 of 2 pairs have a silent source" in done.err
    assert all(math.isfinite(found["mean"]) for found in done.json["metrics"].values())


def test_an_output_that_is_not_finite_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    huge = make_spoilt_dataset(tmp_path / "huge", 4, [5], 1e37, ["input"])
    key = open_dataset(huge).index("val")[1]["key"].decode()
    assert_one_line(evaluate(checkpoint, huge), 1, key, "the output is not finite; use an earlier checkpoint")


def test_an_output_of_absurd_level_has_what_can_be_measured_of_it(checkpoint: Path, tmp_path: Path) -> None:
    loud = make_spoilt_dataset(tmp_path / "loud", 4, [4, 5], 1e14, ["input", "target"])
    done = evaluate(checkpoint, loud, "--out", tmp_path / "found.json", "--json")
    assert done.code == 0, done.err
    assert all(math.isfinite(found["mean"]) for found in done.json["metrics"].values())


def test_bad_input_gets_one_line(checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    assert_one_line(evaluate(checkpoint, dataset, "--split", "test"), 2, "no split 'test'; choose one of: train, val")
    assert_one_line(evaluate(tmp_path / "nothing", dataset), 1, "there is no such checkpoint")
    assert_one_line(evaluate(checkpoint, tmp_path / "nothing"), 1, "there is no such dataset")
    codes = make_dataset(tmp_path / "codes", {"val": [2]}, FRAMES, codec=CODES)
    assert_one_line(evaluate(checkpoint, codes), 1, "made by the codec encodec", "for mdct")
    single = make_dataset(tmp_path / "single", {"val": [1]}, FRAMES)
    assert_one_line(evaluate(checkpoint, single, "--shuffle-targets"), 2, "one pair; leave --shuffle-targets out")
    if not torch.cuda.is_available():
        assert_one_line(evaluate(checkpoint, dataset, "--device", "gpu"), 2, "choose --device cpu")


def test_a_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        found = estimate([{"x": value} for value in rng.normal(3, 1, 30)], trial)["x"]
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 3 <= found.high
    assert 0.88 < hits / 200 < 0.98


def test_a_metric_that_some_pairs_lack_is_averaged_over_the_others() -> None:
    rows = [{"x": 1.0, "y": 2.0}, {"x": 3.0}, {"x": 5.0, "y": 4.0}]
    found = estimate(rows, 0)
    assert (found["x"].mean, found["x"].pairs) == (3, 3)
    assert (found["y"].mean, found["y"].pairs) == (3, 2)
    assert found["y"].low is not None


def test_rhythm_balance_is_that_of_the_mean_correlations() -> None:
    rows = [{"rhythm_correlation_input": a, "rhythm_correlation_target": b} for a, b in ((0.6, 0.0), (0.4, 0.5))]
    found = estimate(rows, 0)["rhythm_balance"]
    assert found.mean == pytest.approx(0.5 / 0.25)

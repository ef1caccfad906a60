"""A folder as people have them: tracks of all kinds beside notes, an empty file, a cut one and a silent one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import run_pipeline, run_shards

from pipeline.synthesize import SAMPLE_RATE, synthesize_pair
from shards.dataset import open_dataset

SECONDS = 2.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven good tracks of four windows in five formats, and what else lies about."""
    root = tmp_path_factory.mktemp("mixed") / "tracks"
    root.mkdir()
    sound = synthesize_pair(5, 0, 4 * SECONDS)
    kinds = [("wav", "PCM_16"), ("wav", "FLOAT"), ("flac", "PCM_24"), ("ogg", "VORBIS"), ("mp3", None)]
    kinds += [("aiff", "PCM_16"), ("wav", "PCM_24")]
    for number, (extension, subtype) in enumerate(kinds):
        samples = np.roll(sound.drums if number % 2 else sound.piano, 1_000 * number)
        if number % 3 == 0:  # stereo at twice the rate
            samples = np.stack([np.repeat(samples, 2)] * 2, axis=1)
        rate = len(samples) / (4 * SECONDS)
        soundfile.write(root / f"track {number}.{extension}", samples, round(rate), subtype=subtype)
    (root / "notes.txt").write_text("buy strings")
    (root / "cover.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "empty.wav").touch()
    (root / "lyrics.wav").write_text("la la la " * 99)
    soundfile.write(root / "jingle.wav", sound.piano[:SAMPLE_RATE], SAMPLE_RATE)
    soundfile.write(root / "silence.wav", np.zeros(round(4 * SECONDS * SAMPLE_RATE)), SAMPLE_RATE)
    whole = root / "cut.wav"
    soundfile.write(whole, sound.drums, SAMPLE_RATE)
    whole.write_bytes(whole.read_bytes()[:-50_000])
    return root


def test_a_mixed_folder_goes_through_with_the_right_refusals(folder: Path, tmp_path: Path) -> None:
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "ds"
    paired = run_pipeline("pair", folder, "--out", pairs, "--mode", "continuation", "--seconds", SECONDS, "--json")
    assert paired.code == 0, paired
    left_out = {Path(file["path"]).name: file["reason"] for file in paired.json["left_out"]}
    assert left_out == {"empty.wav": "empty", "lyrics.wav": "unreadable", "jingle.wav": "too_short"}
    assert sum(split["pairs"] for split in paired.json["splits"].values()) >= 8 * 3

    encoded = run_pipeline(
        "encode", pairs, "--out", out, "--codec", "mdct", "--local", "--json", "--max-reject-fraction", 0.5
    )
    assert encoded.code == 0, encoded
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert {(reject["input"], reject["reason"]) for reject in rejects} == {
        ("silence.wav", "silent"),
        ("cut.wav", "truncated"),
    }
    assert encoded.json["rejected"] == {"silent": 3, "truncated": len(rejects) - 3}
    assert encoded.json["samples"] == 7 * 3
    assert {group for split in open_dataset(out).splits for group in groups(out, split)} == {
        f"track {number}.{kind}" for number, kind in enumerate(["wav", "wav", "flac", "ogg", "mp3", "aiff", "wav"])
    }
    assert run_shards("verify", out, "--level", "full").code == 0


def groups(dataset: Path, split: str) -> set[str]:
    opened = open_dataset(dataset)
    numbers = range(opened.splits[split].samples)
    return {opened.read(opened.locate(f"{split}:{number}")).record.group for number in numbers}

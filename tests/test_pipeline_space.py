"""The size of a dataset, known before it is made, against real ones; and the room on real disks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from make_data import CODES, make_dataset
from make_tracks import SECONDS, paired

from pipeline.config import CodecConfig, EncodeConfig, OutputConfig
from pipeline.encode import encode_dataset, encode_locally
from pipeline.pairing import Pairs
from pipeline.space import bytes_under, dataset_bytes, free_bytes, nearest_folder
from pipeline.synthesize import SAMPLE_RATE, synthesize_pair
from shards.audio import write_wav
from shards.codec import codec_spec
from shards.schema import SIDES

MDCT = codec_spec("mdct")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """Forty-eight pairs of a quarter of a second, from tracks with names of a usual length."""
    root = tmp_path_factory.mktemp("tracks")
    for index in range(12):
        pair = synthesize_pair(3, index, SECONDS)
        for side, samples in (("input", pair.drums), ("target", pair.piano)):
            write_wav(root / "An Artist" / "An Album" / f"{index:02d} A Title_{side}.wav", samples, SAMPLE_RATE)
    return paired(root, SECONDS / 4)


@pytest.mark.parametrize("samples_per_shard", [256, 5])
@pytest.mark.parametrize("latents", ["float16", "float32"])
def test_the_size_is_that_of_the_real_dataset(
    pairs: Pairs, tmp_path: Path, latents: Any, samples_per_shard: int
) -> None:
    output = OutputConfig(latents=latents, samples_per_shard=samples_per_shard)
    encode_dataset(pairs, tmp_path / "ds", EncodeConfig(codec=CodecConfig(name="mdct"), output=output), encode_locally)
    count, window = len(pairs.pairs), pairs.header.window_samples
    size = dataset_bytes(count, MDCT, latents, window, (), samples_per_shard)
    assert size == pytest.approx(bytes_under(tmp_path / "ds"), rel=0.04)
    assert size > 2 * count * 128 * MDCT.frames(window) * (2 if latents == "float16" else 4)


@pytest.mark.parametrize(("audio", "tolerance"), [("target", 0.1), ("both", 0.1)])
def test_flac_is_reckoned_with(pairs: Pairs, tmp_path: Path, audio: Any, tolerance: float) -> None:
    config = EncodeConfig(codec=CodecConfig(name="mdct"), output=OutputConfig(audio=audio))
    encode_dataset(pairs, tmp_path / "ds", config, encode_locally)
    size = dataset_bytes(len(pairs.pairs), MDCT, "float16", pairs.header.window_samples, config.output.audio_sides)
    assert size == pytest.approx(bytes_under(tmp_path / "ds"), rel=tolerance)


def test_codes_are_reckoned_by_their_codebooks(tmp_path: Path) -> None:
    frames, count = 1200, 24
    folder = make_dataset(tmp_path / "ds", {"train": (count,)}, frames, codec=CODES)
    spec = CODES.model_copy(update={"stage": "pre_quantizer"})
    sizes = {one.stage: dataset_bytes(count, one, "codes", frames * 320, ()) for one in (CODES, spec)}
    assert len(set(sizes.values())) == 1, "of the codec's own spec, or of that of its codes"
    arrays = 2 * count * 8 * frames * 2
    shards = sum(path.stat().st_size for path in folder.rglob("*.tar"))
    # The envelopes of these records are shorter than real ones: 4 KB a sample.
    assert arrays < shards < sizes["quantized"] < shards + count * 6_000 + 60_000


def test_every_pair_counts_alike_and_each_side_s_sound_on_top() -> None:
    def of(count: int, audio: Any = ()) -> int:
        return dataset_bytes(count, MDCT, "float16", 16 * SAMPLE_RATE, audio)

    assert of(512) - of(256) == pytest.approx(256 * 2 * 128 * 1200 * 2, rel=0.02)
    assert of(256, SIDES) - of(256, ("target",)) == of(256, ("target",)) - of(256) > 256 * 16 * SAMPLE_RATE / 2


def test_the_room_is_that_of_the_disk_that_a_folder_will_lie_on(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert nearest_folder(tmp_path / "there" / "not" / "yet") == tmp_path / "there"
    stat = os.statvfs(tmp_path)
    assert free_bytes(tmp_path / "not" / "yet") == pytest.approx(stat.f_bavail * stat.f_frsize, rel=0.05)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    (disk := tmp_path / "disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False).returncode != 0:
        pytest.skip("this user may not mount a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_the_room_on_a_small_disk_shrinks_as_it_is_filled(small_disk: Path) -> None:
    assert free_bytes(small_disk / "ds") == 1 << 20
    (small_disk / "ds.partial" / "train").mkdir(parents=True)
    (small_disk / "ds.partial" / "train" / "shard.tar").write_bytes(bytes(600_000))
    assert bytes_under(small_disk / "ds.partial") == 600_000
    assert free_bytes(small_disk / "ds") <= (1 << 20) - 600_000
    assert bytes_under(small_disk / "absent") == 0

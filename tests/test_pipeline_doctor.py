"""`python -m pipeline doctor`: every check on a sound machine, on a broken one, and none that hides another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Outcome, run_pipeline
from make_tracks import PAIRS, make_tracks
from make_weights import SeededWeights

from pipeline.config import CodecConfig, EncodeConfig
from pipeline.doctor import codec as codec_checks
from pipeline.doctor.case import Case, Trial, batch_speeds
from pipeline.doctor.finding import Finding
from pipeline.doctor.machine import available_memory
from pipeline.encoder import Encoder
from pipeline.space import dataset_bytes
from shards.codec import codec_spec
from shards.codec.mdct import MdctCodec
from shards.codec.weights import WEIGHTS_FILE

REPOSITORY = Path(__file__).resolve().parent.parent
MDCT = ("--codec", "mdct", "--no-ray")
ALLOW = "--codec-allow-unknown-weights"
OF_THE_CODEC = ("round trip", "batches", "determinism", "threads", "speed")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """The doctor sets it for its process, as an actor does."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pairs of one second, and pairs.jsonl over them."""
    return make_tracks(tmp_path_factory.mktemp("tracks"))


@pytest.fixture
def edited(tracks: Path, tmp_path: Path) -> Any:
    """Write the pairs file with some keys of its header changed; gives its path."""

    def edit(**header: object) -> Path:
        first, *pairs = (tracks / "pairs.jsonl").read_text().splitlines()
        path = tmp_path / "edited.jsonl"
        path.write_text("\n".join([json.dumps(json.loads(first) | header), *pairs]) + "\n")
        return path

    return edit


class Examined:
    """What the doctor found, by the names of its checks."""

    def __init__(self, outcome: Outcome) -> None:
        assert outcome.err == ""
        self.code = outcome.code
        self.counts = outcome.json["counts"]
        self.checks = {check["name"]: check for check in outcome.json["checks"]}

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self.checks[name]  # type: ignore[no-any-return]

    def measured(self, name: str) -> dict[str, Any]:
        return self.checks[name]["measured"]  # type: ignore[no-any-return]

    def of_status(self, status: str) -> set[str]:
        return {name for name, check in self.checks.items() if check["status"] == status}


def doctor(*arguments: object) -> Examined:
    return Examined(run_pipeline("doctor", *arguments, "--json"))


# A sound machine


def test_a_sound_machine_has_nothing_to_mend(tracks: Path, tmp_path: Path) -> None:
    found = doctor(tracks / "pairs.jsonl", "--out", tmp_path / "new" / "ds", *MDCT)
    assert found.code == 0
    assert found.of_status("failed") == found.of_status("warning") == set()
    assert found.of_status("skipped") == {"ray"}
    assert found.counts == {"ok": len(found.checks) - 1, "warning": 0, "failed": 0, "skipped": 1}
    assert all(check.keys() == {"name", "status", "value", "mend", "measured"} for check in found.checks.values())
    assert found.measured("versions")["torch"] == torch.__version__.split("+")[0]
    pairs = {"pairs": PAIRS, "windows": 2 * PAIRS, "files": 2 * PAIRS, "window_seconds": 1.0}
    assert found.measured("pairs").items() >= pairs.items()
    assert found.measured("sources").items() >= {"looked_at": 2 * PAIRS, "missing": 0}.items()
    assert found.measured("round trip").items() >= {"samples": 24_000, "frames": 75}.items()
    assert found.measured("round trip")["snr_db"] > 20
    assert found.measured("threads")["threads"] == 1
    assert found.measured("duration").items() >= {"windows": 2 * PAIRS, "shards": 1, "at_work": 1}.items()
    expected = 2 * PAIRS * found.measured("speed")["seconds_per_window"] / 3600
    assert found.measured("duration")["hours"] == pytest.approx(expected)
    assert found.measured("space")["dataset_bytes"] == dataset_bytes(
        PAIRS, codec_spec("mdct"), "float16", 24_000, (), samples_per_shard=256
    )
    assert list(tmp_path.iterdir()) == []


def test_without_pairs_the_machine_alone_is_examined() -> None:
    found = doctor(*MDCT)
    assert found.code == 0
    assert {"versions", "codec weights", *OF_THE_CODEC, "gpu", "memory", "ray"} <= set(found.checks)
    assert not {"pairs", "sources", "duration", "space", "writable"} & set(found.checks)
    assert found.measured("speed")["window_seconds"] == 16
    assert found.measured("round trip")["frames"] == 1200


def test_people_see_a_table_with_the_mend_below_what_was_found(tracks: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = run_pipeline("doctor", tracks / "pairs.jsonl", "--out", tmp_path / "file" / "ds", *MDCT)
    assert outcome.code == 1
    lines = [line.split() for line in outcome.out.splitlines()]
    assert lines[0] == ["check", "status", "found,", "and", "what", "to", "do"]
    assert any(line[:3] == ["versions", "ok", "python"] for line in lines)
    (place,) = (number for number, line in enumerate(lines) if line[:2] == ["writable", "failed"])
    assert " ".join(lines[place + 1]) == "get the right to write there, or choose another --out"


def test_an_unknown_key_is_misuse() -> None:
    outcome = run_pipeline("doctor", *MDCT, "--set", "encodr.device=cpu")
    assert outcome.code == 2
    assert "did you mean 'encoder'" in outcome.err


# The codec


def test_unknown_weights_fail_and_hide_nothing_but_what_needs_them(
    tracks: Path, tmp_path: Path, seeded: SeededWeights
) -> None:
    found = doctor(tracks / "pairs.jsonl", "--out", tmp_path / "ds", "--no-ray", "--codec-weights", seeded.path)
    assert found.code == 1
    assert found.of_status("failed") == {"codec weights"}
    assert ALLOW in found["codec weights"]["mend"]
    assert seeded.sha256 in found["codec weights"]["value"]
    assert found.of_status("skipped") == {*OF_THE_CODEC, "duration", "ray"}
    assert {found[name]["value"] for name in OF_THE_CODEC} == {"needs codec weights"}
    assert {"pairs", "sources", "space", "writable", "memory"} <= found.of_status("ok")


def test_allowed_weights_are_a_warning_and_the_codec_is_examined(tracks: Path, seeded: SeededWeights) -> None:
    found = doctor(tracks / "pairs.jsonl", "--no-ray", "--codec-weights", seeded.path, ALLOW)
    assert found.code == 0
    assert found.of_status("warning") == {"codec weights"}
    about = {"path": str(seeded.path), "bytes": seeded.path.stat().st_size, "sha256": seeded.sha256, "known": False}
    assert found.measured("codec weights") == about
    assert "unknown and allowed" in found["codec weights"]["value"]
    assert found.measured("round trip")["frames"] == 75
    assert 1 < found.measured("round trip")["latents_rms"] < 30
    assert found.measured("batches")["difference"] < 1e-3
    assert found.measured("determinism") == {"runs": 4}


def test_damaged_weights_are_named(seeded: SeededWeights, tmp_path: Path) -> None:
    (tmp_path / "half.th").write_bytes(seeded.path.read_bytes()[: 1 << 20])
    found = doctor("--no-ray", "--codec-weights", tmp_path / "half.th", ALLOW)
    assert found.code == 1
    assert found.of_status("failed") == {"codec weights"}
    assert found["codec weights"]["value"].startswith(f"weights file {tmp_path / 'half.th'} is damaged")
    assert found["codec weights"]["mend"] == f"fetch {WEIGHTS_FILE} again"


def test_missing_weights_name_the_file_and_the_option(no_published_weights: Path) -> None:
    found = doctor("--no-ray")
    assert found.code == 1
    assert found.of_status("failed") == {"codec weights"}
    for part in (WEIGHTS_FILE, str(no_published_weights.parent)):
        assert part in found["codec weights"]["value"]
    assert "--codec-weights" in found["codec weights"]["mend"]
    assert list(no_published_weights.parent.iterdir()) == []


def test_codes_of_a_codec_without_a_quantizer_fail() -> None:
    found = doctor(*MDCT, "--latents", "codes")
    assert found.of_status("failed") == {"codec weights"}
    assert "--latents float16" in found["codec weights"]["mend"]


def mdct_case(latents: tuple[np.ndarray[Any, Any], ...] | None = None, **changes: Any) -> Case:
    """A case with a trial that came out otherwise than on this machine."""
    case = Case(EncodeConfig(codec=CodecConfig(name="mdct")), with_ray=False)
    case.trial = replace(case.trial, **({"latents": latents} if latents else {}), **changes)
    return case


def judged(judge: Any, case: Case) -> Finding:
    return Finding("", *judge(case))


def test_latents_that_are_not_what_they_should_be_fail() -> None:
    sound = mdct_case().trial
    first = sound.latents[0]
    assert isinstance(sound, Trial)
    spoiled, shifted = first.copy(), np.roll(first, 1, axis=1)
    spoiled[3, 100] = np.nan
    for latents, part in ((first[:, :-1], "not 1200 frames"), (spoiled, "not finite"), (shifted, "dB")):
        finding = judged(codec_checks.round_trip, mdct_case((latents,)))
        assert finding.status == "failed"
        assert part in finding.value
    faint = judged(codec_checks.round_trip, mdct_case((first / 100,)))
    assert faint.status == "failed", "it does not come back as it was"
    finding = judged(codec_checks.determinism, mdct_case((first, first, first + np.float32(1e-4))))
    assert finding.status == "failed"
    assert finding.measured["difference"] == pytest.approx(1e-4, rel=0.2)
    unknown = judged(codec_checks.determinism, mdct_case((first, spoiled)))
    assert unknown.as_json()["measured"] == {"difference": None}


def test_threads_beside_the_encoder_s_own_are_a_warning() -> None:
    finding = judged(codec_checks.threads, mdct_case(busy=3.7))
    assert (finding.status, finding.measured) == ("warning", {"threads": 1, "busy_cores": 3.7})
    assert "OMP_NUM_THREADS=1" in finding.mend


# The job


def test_a_broken_pairs_file_hides_no_check_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    found = doctor(tmp_path / "pairs.jsonl", "--out", tmp_path / "ds", *MDCT)
    assert found.code == 1
    assert found.of_status("failed") == {"pairs"}
    assert "make the file with" in found["pairs"]["mend"]
    assert found.of_status("skipped") == {"sources", "duration", "space", "ray"}
    assert set(OF_THE_CODEC) <= found.of_status("ok")


@pytest.mark.parametrize(("missing", "status"), [(1, "warning"), (3, "failed"), (24, "failed")])
def test_sources_that_are_not_here_are_missed(tracks: Path, edited: Any, missing: int, status: str) -> None:
    pairs = edited(root="wav")
    for number, path in enumerate(sorted((tracks / "wav").rglob("*.wav"))):
        here = pairs.parent / "wav" / path.relative_to(tracks / "wav")
        here.parent.mkdir(parents=True, exist_ok=True)
        if number >= missing:
            here.symlink_to(path)
    pairs = edited(root=str(pairs.parent / "wav"))
    found = doctor(pairs, *MDCT)
    assert found["sources"]["status"] == status
    assert found.measured("sources")["missing"] == missing
    assert "train/pair_0000_input.wav is not" in found["sources"]["value"]
    assert found.code == (1 if status == "failed" else 0)


def test_of_many_sources_some_are_looked_at_from_the_first_to_the_last(tracks: Path, edited: Any) -> None:
    pairs = edited()
    first, *lines = pairs.read_text().splitlines()
    one = next(line for line in lines if '"split"' in line)
    many = [one.replace("pair_0000_input", f"pair_{number:04d}_input") for number in range(2000)]
    many = [line.replace('"group": "', f'"group": "{number}') for number, line in enumerate(many)]
    pairs.write_text("\n".join([first, *many]) + "\n")
    found = doctor(pairs, *MDCT)
    assert found.measured("pairs")["files"] == 2001
    measured = found.measured("sources")
    assert 300 <= measured["looked_at"] <= 350
    assert 0 < measured["looked_at"] - measured["missing"] <= PAIRS // 6 + 1, "of the twelve that are here, one in six"


def test_a_dataset_larger_than_the_disk_fails(edited: Any, tmp_path: Path) -> None:
    found = doctor(edited(window_samples=10**12), "--out", tmp_path / "ds", *MDCT)
    assert found.code == 1
    assert found.of_status("failed") == {"space"}
    measured = found.measured("space")
    assert measured["needed_bytes"] == measured["dataset_bytes"] > PAIRS * 2 * 128 * 10**12 / 320 * 2
    assert measured["free_bytes"] < measured["needed_bytes"]
    assert str(tmp_path) in found["space"]["value"]
    assert "choose another --out" in found["space"]["mend"]
    assert found.measured("speed")["window_seconds"] == 16, "no window is too long to be examined"


def test_a_small_disk_is_too_small_for_all_of_it_and_large_enough_for_the_rest(tracks: Path, tmp_path: Path) -> None:
    (disk := tmp_path / "disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", disk], check=False).returncode != 0:
        pytest.skip("this user may not mount a small disk")
    try:
        command = (tracks / "pairs.jsonl", "--out", disk / "ds", *MDCT)
        assert doctor(*command)["space"]["status"] == "ok"
        float32 = doctor(*command, "--latents", "float32")
        assert (float32.code, float32.of_status("failed")) == (1, {"space"})
        flac = doctor(*command, "--audio", "both")
        assert (flac.code, flac.of_status("warning")) == (0, {"space"}), "how large FLAC is depends on the music"
        (disk / "ds.partial" / "train").mkdir(parents=True)
        (disk / "ds.partial" / "train" / "shard.tar").write_bytes(bytes(500_000))
        assert doctor(*command)["space"]["status"] == "ok", "the finished shards are kept"
        (disk / "ds.partial").rename(disk / "other")
        assert doctor(*command)["space"]["status"] == "failed"
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_url_is_written_to_and_left_as_it_was(tracks: Path) -> None:
    import fsspec

    found = doctor(tracks / "pairs.jsonl", "--out", "memory://bucket/ds", *MDCT)
    assert found.code == 0
    assert found["writable"]["value"] == "memory://bucket/ds can be written to"
    assert found.measured("space")["needed_bytes"] <= found.measured("space")["dataset_bytes"]
    assert fsspec.filesystem("memory").find("/bucket") == []
    wrong = doctor("--out", "nothing://bucket/ds", *MDCT)
    assert wrong.of_status("failed") == {"writable"}
    assert "nothing://bucket/ds" in wrong["writable"]["value"]


# Memory and GPUs


def test_the_memory_that_is_left_is_the_least_of_the_machine_and_its_groups(tmp_path: Path) -> None:
    processes, groups = tmp_path / "proc", tmp_path / "cgroup"

    def group(folder: Path, **content: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in content.items():
            (folder / name.replace("__", ".")).write_text(f"{value}\n")

    group(processes / "self", cgroup="0::/")
    group(processes, meminfo="MemTotal: 9000 kB\nMemAvailable: 8000 kB")
    assert available_memory(processes, groups) == 8_192_000

    group(processes / "self", cgroup="0::/job/step")
    stat = "anon 1\ninactive_file 1000"
    group(groups / "job", memory__max=5_000_000, memory__current=1_001_000, memory__stat=stat)
    group(groups / "job" / "step", memory__max="max", memory__current=7, memory__stat=stat)
    assert available_memory(processes, groups) == 4_000_000, "of the group above it, without its cache"

    group(processes / "self", cgroup="4:cpu,memory:/job\n1:name=systemd:/\n0::/")
    names = {"memory__limit_in_bytes": 3_000_000, "memory__usage_in_bytes": 4_000_000}
    group(groups / "memory" / "job", **names, memory__stat="total_inactive_file 0")
    assert available_memory(processes, groups) == 0


def test_memory_is_asked_for_as_many_encoders_as_there_will_be() -> None:
    measured = doctor(*MDCT).measured("memory")
    assert measured["actors"] == 1, "--no-ray stands for --local"
    assert measured["actors_that_fit"] == measured["available_bytes"] // 1_600_000_000


def test_batch_sizes_past_the_memory_are_left_out() -> None:
    codec, sound = MdctCodec(), np.zeros(24_000, np.float32)

    def make(size: int) -> Encoder:
        if size > 4:
            raise torch.cuda.OutOfMemoryError
        encoder = Encoder(codec, "cpu", size)
        encoder.batch_size = size
        return encoder

    speeds = batch_speeds(make, (1, 4, 8, 16), sound)
    assert list(speeds) == [1, 4]
    assert all(rate > 0 for rate in speeds.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_was_asked_for_and_is_not_there_fails() -> None:
    found = doctor(*MDCT, "--device", "gpu")
    assert found.of_status("failed") == {"gpu"}
    assert "--device cpu" in found["gpu"]["mend"]
    assert doctor(*MDCT)["gpu"]["value"] == "none"


@needs_gpu
def test_a_gpu_is_measured(tracks: Path, seeded: SeededWeights) -> None:
    found = doctor(tracks / "pairs.jsonl", "--no-ray", "--codec-weights", seeded.path, ALLOW)
    assert found["gpu"]["status"] == found["gpu speed"]["status"] == "ok"
    assert found.measured("gpu speed")["windows_per_second_1"] > 0
    assert 0 < found.measured("gpu speed")["difference_to_cpu"] < 1e-2
    assert found["duration"]["value"].endswith("GPUs")


# Ray


@pytest.mark.slow
def test_ray_is_reached_and_an_actor_loads_the_codec(ray_cluster: Any, seeded: SeededWeights, tmp_path: Path) -> None:
    found = doctor("--codec", "mdct")
    assert (found.code, found["ray"]["status"]) == (0, "ok")
    measured = found.measured("ray")
    assert measured.items() >= {"cpus": 4, "gpus": 0, "device": "cpu", "actors": 4}.items()
    assert found.measured("versions")["ray"] == ray_cluster.__version__

    found = doctor("--codec-weights", tmp_path / "absent.th")
    assert found.of_status("failed") == {"codec weights", "ray"}, "each says what is wrong"
    assert found["ray"]["value"] == found["codec weights"]["value"]
    assert "absent.th" in found["ray"]["value"]


@pytest.mark.slow
def test_an_address_where_no_ray_is_fails_at_once() -> None:
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}
    command = [sys.executable, "-m", "pipeline", "doctor", "--codec", "mdct", "--json"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    (failed,) = (check for check in json.loads(done.stdout)["checks"] if check["status"] == "failed")
    assert (done.returncode, failed["name"]) == (1, "ray")
    assert failed["value"].startswith("RAY_ADDRESS=127.0.0.1:1: nothing answers there")
    assert "unset it for a private cluster" in failed["mend"]

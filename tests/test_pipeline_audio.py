"""Audio in: what is refused and why, and that what is taken keeps its length, pitch and level."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from pipeline.audio import ScreeningConfig, Track, load_track
from shards.audio import AudioError, envelope, probe, read, write_wav

RATE = 24_000
SCREENING = ScreeningConfig()
Audio = NDArray[np.float64]

WAV_KINDS = [("WAV", kind) for kind in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW")]
KINDS = [
    *WAV_KINDS,
    ("WAVEX", "PCM_24"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("AIFF", "PCM_16"),
    ("AIFF", "PCM_24"),
    ("OGG", "VORBIS"),
    ("MP3", "MPEG_LAYER_III"),
]
EXTENSION = {"WAVEX": "wav"}


def tone(frequency: float, seconds: float = 1.0, rate: int = RATE, level: float = 0.5) -> Audio:
    return level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def load(path: Path, rate: int = RATE) -> Track:
    return load_track(path, rate, SCREENING)


def written(path: Path, samples: Audio, rate: int = RATE, kind: str = "WAV", subtype: str = "PCM_16") -> Path:
    soundfile.write(path, samples, rate, format=kind, subtype=subtype)
    return path


def level_of(samples: NDArray[np.float32], frequency: float) -> float:
    """Amplitude of one frequency in the middle of `samples`, by a windowed Fourier sum."""
    middle = samples[len(samples) // 4 : -len(samples) // 4].astype(np.float64)
    window = np.hanning(len(middle))
    phase = np.exp(-2j * np.pi * frequency * np.arange(len(middle)) / RATE)
    return float(2 * abs(np.sum(middle * window * phase)) / window.sum())


def residue_db(samples: NDArray[np.float32], level: float) -> float:
    """RMS of the middle of `samples` against that of a sine of `level`, in dB."""
    middle = samples[len(samples) // 4 : -len(samples) // 4].astype(np.float64)
    return float(20 * np.log10(np.sqrt(np.mean(middle**2)) / (level / np.sqrt(2)) + 1e-12))


# What is taken


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_every_kind_of_file_keeps_its_length_pitch_and_level(
    tmp_path: Path, kind: str, subtype: str, channels: int
) -> None:
    if kind not in soundfile.available_formats():
        pytest.skip(f"this libsndfile writes no {kind}")
    samples = tone(1_000, rate=44_100)
    path = tmp_path / f"tone.{EXTENSION.get(kind, kind.lower())}"
    written(path, np.stack([samples] * channels, axis=1), 44_100, kind, subtype)

    track = load(path)

    assert (track.sample_rate, track.channels, track.path) == (44_100, channels, path)
    assert track.samples.dtype == np.float32
    assert track.samples.shape == (RATE,)
    assert level_of(track.samples, 1_000) == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000])
def test_resampling_keeps_length_pitch_and_level(tmp_path: Path, rate: int) -> None:
    samples = load(written(tmp_path / "tone.wav", tone(1_000, 2, rate), rate, subtype="FLOAT")).samples
    assert len(samples) == 2 * RATE
    assert level_of(samples, 1_000) == pytest.approx(0.5, rel=1e-3)
    rest = samples - tone(1_000, 2).astype(np.float32)
    assert residue_db(rest, 0.5) < -60, "shifted in time, or with something beside the tone"


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize("frequency", [13_000, 15_000, 20_000])
def test_what_24_khz_can_not_hold_does_not_alias(tmp_path: Path, rate: int, frequency: float) -> None:
    samples = load(written(tmp_path / "high.wav", tone(frequency, 2, rate), rate, subtype="FLOAT")).samples
    assert residue_db(samples, 0.5) < -60


def test_the_treble_is_kept(tmp_path: Path) -> None:
    samples = load(written(tmp_path / "treble.wav", tone(10_500, 2, 48_000), 48_000, subtype="FLOAT")).samples
    assert level_of(samples, 10_500) == pytest.approx(0.5, rel=0.01)


def test_stereo_becomes_the_mean(tmp_path: Path) -> None:
    both = np.stack([tone(1_000, level=0.6), tone(3_000, level=0.2)], axis=1)
    samples = load(written(tmp_path / "stereo.wav", both, subtype="FLOAT")).samples
    np.testing.assert_allclose(samples, both.mean(axis=1), atol=1e-6)


def test_a_track_knows_its_file(tmp_path: Path) -> None:
    one = load(written(tmp_path / "one.wav", tone(1_000)))
    same = load(written(tmp_path / "same.wav", tone(1_000)))
    other = load(written(tmp_path / "other.wav", tone(1_001)))
    assert one.sha256 == same.sha256 != other.sha256


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
def test_a_stream_that_never_learnt_its_length_is_not_called_truncated(tmp_path: Path, length: int) -> None:
    path = written(tmp_path / "stream.wav", tone(1_000))
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", length)
    path.write_bytes(content)
    if length:
        assert len(load(path).samples) == RATE
    else:
        with pytest.raises(AudioError) as caught:
            load(path)
        assert caught.value.reason == "empty"


def test_chunks_before_the_sound_are_passed_over(tmp_path: Path) -> None:
    path = written(tmp_path / "tagged.wav", tone(1_000))
    content = path.read_bytes()
    # A chunk of odd length is padded to an even one.
    path.write_bytes(content[:36] + b"LIST\x05\x00\x00\x00INFOx\x00" + content[36:])
    assert len(load(path).samples) == RATE
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(AudioError, match="2 of 48000 bytes of sound are missing"):
        load(path)


def test_an_mp3_file_without_a_length_in_its_header_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "bare.mp3"
    soundfile.write(path, tone(1_000, 2, 44_100), 44_100, format="MP3", bitrate_mode="CONSTANT", compression_level=0.5)
    content = path.read_bytes()
    start = content.index(content[:2], 4)
    assert b"Xing" in content[:start] or b"Info" in content[:start]
    path.write_bytes(content[start:])
    with soundfile.SoundFile(path) as file:
        assert file.frames > len(file.read()), "this file does not need the tolerance"
    assert len(load(path).samples) == pytest.approx(2 * RATE, abs=0.1 * RATE)


# Windows


def test_windows_are_cut_from_the_whole_file_resampled(tmp_path: Path) -> None:
    track = load(written(tmp_path / "long.wav", tone(440, 3, 44_100), 44_100))
    parts = [track.window(start * RATE, RATE, SCREENING) for start in range(3)]
    assert np.concatenate(parts).tobytes() == track.samples.tobytes()


@pytest.mark.parametrize(
    ("start", "reason"), [(RATE + 1, "too_short"), (2 * RATE, "too_short"), (9 * RATE, "too_short")]
)
def test_a_window_that_is_not_all_there_is_refused(tmp_path: Path, start: int, reason: str) -> None:
    track = load(written(tmp_path / "two.wav", tone(440, 2)))
    with pytest.raises(AudioError) as caught:
        track.window(start, RATE, SCREENING)
    assert caught.value.reason == reason
    assert "2.00 windows long" in caught.value.detail


def test_a_silent_window_of_a_sounding_track_is_refused(tmp_path: Path) -> None:
    samples = tone(440, 2)
    samples[RATE:] *= 1e-4
    track = load(written(tmp_path / "fades.wav", samples, subtype="FLOAT"))
    assert len(track.window(0, RATE, SCREENING)) == RATE
    with pytest.raises(AudioError) as caught:
        track.window(RATE, RATE, SCREENING)
    assert caught.value.reason == "silent"
    assert len(track.window(RATE, RATE, ScreeningConfig(silence_rms=0))) == RATE


# What is refused


def nothing(path: Path) -> None:
    """Leave no file at all."""


def empty(path: Path) -> None:
    path.touch()


def folder(path: Path) -> None:
    path.mkdir()


def header_only(path: Path) -> None:
    written(path, tone(1_000))
    path.write_bytes(path.read_bytes()[:44])


def no_samples(path: Path) -> None:
    written(path, np.zeros(0))


def riff_only(path: Path) -> None:
    path.write_bytes(b"RIFF\x24\x00\x00\x00WAVE")


def garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5_000))


def text(path: Path) -> None:
    path.write_text("this is a song\n" * 99)


def cut_wav(path: Path) -> None:
    written(path, tone(1_000))
    path.write_bytes(path.read_bytes()[:-100])


def _cut(kind: str) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        noise = 0.1 * np.random.default_rng(0).standard_normal(2 * RATE)
        soundfile.write(path, noise, RATE, format=kind)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])

    return cut


def with_nan(path: Path) -> None:
    samples = tone(1_000)
    samples[777] = np.nan
    written(path, samples, subtype="FLOAT")


def with_infinity(path: Path) -> None:
    samples = tone(1_000)
    samples[777] = -np.inf
    written(path, samples, subtype="FLOAT")


def clipped(path: Path) -> None:
    written(path, np.clip(tone(1_000, level=2.0), -1, 1))


def opposite(path: Path) -> None:
    samples = tone(1_000)
    written(path, np.stack([samples, -samples], axis=1))


REFUSED = [
    (nothing, "wav", "missing"),
    (folder, "wav", "missing"),
    (empty, "wav", "empty"),
    (no_samples, "wav", "empty"),
    (header_only, "wav", "truncated"),
    (cut_wav, "wav", "truncated"),
    (_cut("AIFF"), "aiff", "truncated"),
    (_cut("MP3"), "mp3", "truncated"),
    (_cut("FLAC"), "flac", "unreadable"),
    (riff_only, "wav", "unreadable"),
    (garbage, "wav", "unreadable"),
    (garbage, "mp3", "unreadable"),
    (text, "wav", "unreadable"),
    (with_nan, "wav", "not_finite"),
    (with_infinity, "wav", "not_finite"),
    (clipped, "wav", "clipped"),
    (opposite, "wav", "cancelling"),
]


@pytest.mark.parametrize(
    ("make", "extension", "reason"), REFUSED, ids=[f"{make.__name__}-{extension}" for make, extension, _ in REFUSED]
)
def test_a_refusal_names_the_file_and_the_reason(
    tmp_path: Path, make: Callable[[Path], None], extension: str, reason: str
) -> None:
    path = tmp_path / f"song.{extension}"
    make(path)
    with pytest.raises(AudioError) as caught:
        load(path)
    assert caught.value.reason == reason
    message = str(caught.value)
    assert message.startswith(f"{path}: {reason.replace('_', ' ')}: ")
    assert message.endswith("; repair the file or leave it out")
    assert "\n" not in message
    assert "pipe" not in message


@pytest.mark.parametrize("probed", [probe, read])
def test_the_header_of_no_audio_file_is_no_traceback(tmp_path: Path, probed: Callable[[Path], object]) -> None:
    text(tmp_path / "song.wav")
    with pytest.raises(AudioError, match="unreadable"):
        probed(tmp_path / "song.wav")


def test_a_name_that_no_file_can_have_is_a_refusal_too(tmp_path: Path) -> None:
    with pytest.raises(AudioError) as caught:
        load(tmp_path / ("x" * 300 + ".wav"))
    assert caught.value.reason == "unreadable"


# Near the thresholds


def test_a_loud_master_is_not_clipped(tmp_path: Path) -> None:
    samples = tone(1_000, level=0.99)
    samples[:100] = 1.0
    assert len(load(written(tmp_path / "loud.wav", samples)).samples) == RATE


def test_how_much_clipping_is_too_much_can_be_set(tmp_path: Path) -> None:
    clipped(tmp_path / "clipped.wav")
    assert len(load_track(tmp_path / "clipped.wav", RATE, ScreeningConfig(clipped_fraction=1)).samples) == RATE


def test_wide_stereo_does_not_cancel(tmp_path: Path) -> None:
    both = np.stack([tone(1_000), -0.5 * tone(1_000)], axis=1)
    assert level_of(load(written(tmp_path / "wide.wav", both)).samples, 1_000) == pytest.approx(0.125, rel=0.01)


def test_one_sided_stereo_does_not_cancel(tmp_path: Path) -> None:
    both = np.stack([tone(1_000), 0 * tone(1_000)], axis=1)
    assert level_of(load(written(tmp_path / "left.wav", both)).samples, 1_000) == pytest.approx(0.25, rel=0.01)


# Envelope and writing


def test_the_envelope_is_the_peak_of_each_of_250_segments() -> None:
    samples = np.zeros(25_000, np.float32)
    samples[0], samples[99], samples[100], samples[-1] = 0.125, -0.5, 0.25, -1.0
    found = envelope(samples)
    assert len(found) == 250
    assert (found[0], found[1], found[249]) == (0.5, 0.25, 1.0)
    assert not any(found[2:249])


@pytest.mark.parametrize("length", [250, 251, 999, 384_001])
def test_the_envelope_covers_any_length(length: int) -> None:
    samples = np.zeros(length, np.float32)
    samples[-1] = 0.5
    found = envelope(samples)
    assert len(found) == 250
    assert found[-1] == 0.5
    assert sum(found) == 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.001, -2.0])
def test_samples_that_no_wav_file_can_hold_leave_no_file(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="within"):
        write_wav(tmp_path / "song.wav", np.array([0.0, value], np.float32), RATE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("subtype", "steps"), [("PCM_16", 2**15), ("PCM_24", 2**23)])
def test_a_written_file_holds_the_samples(tmp_path: Path, subtype: str, steps: int) -> None:
    samples = tone(1_000).astype(np.float32)
    path = tmp_path / "new folder" / "song.wav"
    write_wav(path, samples, RATE, subtype)  # type: ignore[arg-type]
    recording = read(path)
    assert (recording.source.sample_rate, recording.source.channels) == (RATE, 1)
    np.testing.assert_allclose(recording.channels[:, 0], samples, atol=1.01 / steps)
    assert [p.name for p in path.parent.iterdir()] == ["song.wav"]

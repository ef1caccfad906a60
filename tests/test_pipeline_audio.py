"""Audio in: what is refused and why, and that what is taken keeps its length, pitch and level."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from make_audio import RATE, Audio, flac_of, tone, wav
from numpy.typing import NDArray

from pipeline.audio import ScreeningConfig, Track, load_track
from pipeline.loudness import integrated_loudness
from shards.audio import AudioError, decode_flac, encode_flac, envelope, read, resample, write_wav

SCREENING = ScreeningConfig()

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


def test_a_window_may_be_the_last_moment_of_a_track(tmp_path: Path) -> None:
    track = load(written(tmp_path / "two.wav", tone(440, 1.24)))
    assert len(track.window(round(1.2 * RATE), 100, SCREENING)) == 100


def test_a_silent_window_of_a_sounding_track_is_refused(tmp_path: Path) -> None:
    samples = tone(440, 2)
    samples[RATE:] *= 1e-4
    track = load(written(tmp_path / "fades.wav", samples, subtype="FLOAT"))
    assert len(track.window(0, RATE, SCREENING)) == RATE
    with pytest.raises(AudioError) as caught:
        track.window(RATE, RATE, SCREENING)
    assert caught.value.reason == "silent"
    assert len(track.window(RATE, RATE, ScreeningConfig(silence_rms=0))) == RATE


# Near the thresholds


def test_a_loud_master_is_not_clipped(tmp_path: Path) -> None:
    samples = tone(1_000, level=0.99)
    samples[:100] = 1.0
    assert len(load(written(tmp_path / "loud.wav", samples)).samples) == RATE


def test_how_much_clipping_is_too_much_can_be_set(tmp_path: Path) -> None:
    written(tmp_path / "clipped.wav", np.clip(tone(1_000, level=2.0), -1, 1))
    assert len(load_track(tmp_path / "clipped.wav", RATE, ScreeningConfig(clipped_fraction=1)).samples) == RATE


@pytest.mark.parametrize(("share", "level"), [(-0.5, 0.125), (0.0, 0.25)], ids=["wide", "one-sided"])
def test_stereo_that_is_wide_does_not_cancel(tmp_path: Path, share: float, level: float) -> None:
    both = np.stack([tone(1_000), share * tone(1_000)], axis=1)
    track = load(written(tmp_path / "wide.wav", both))
    assert level_of(track.window(0, RATE, SCREENING), 1_000) == pytest.approx(level, rel=0.01)


def test_a_single_loud_moment_keeps_a_silent_track(tmp_path: Path) -> None:
    samples = np.zeros(60 * RATE)
    samples[30 * RATE : 31 * RATE] = tone(1_000, level=3e-4)
    track = load(written(tmp_path / "rests.wav", samples, subtype="FLOAT"))
    assert len(track.window(30 * RATE, RATE, SCREENING)) == RATE
    with pytest.raises(AudioError, match="silent"):
        track.window(0, RATE, SCREENING)


def test_a_threshold_of_zero_takes_silence(tmp_path: Path) -> None:
    screening = ScreeningConfig(silence_rms=0)
    track = load_track(written(tmp_path / "silence.wav", np.zeros(RATE)), RATE, screening)
    assert not track.window(0, RATE, screening).any()


# Blocks


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [11_025, 24_000, 44_100, 48_000, 96_000])
def test_blocks_give_the_same_bits_as_the_whole_file(tmp_path: Path, rate: int, channels: int) -> None:
    # Three seconds and a piece: no block size divides them.
    both = np.random.default_rng(rate).uniform(-0.9, 0.9, (3 * rate + 1_237, channels))
    path = written(tmp_path / "noise.wav", both, rate, subtype="FLOAT")
    whole = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1, dtype=np.float32)
    expected = whole if rate == RATE else soxr.resample(whole, rate, RATE, "HQ")
    assert load(path).samples.tobytes() == expected.tobytes()
    assert read(path).mono(RATE).tobytes() == expected.tobytes()


@pytest.mark.parametrize("size", [1, 97, 4_096, 70_000])
def test_the_size_of_blocks_does_not_matter(size: int) -> None:
    samples = np.random.default_rng(size).uniform(-1, 1, 44_100).astype(np.float32)
    blocks = [samples[start : start + size] for start in range(0, len(samples), size)]
    assert resample(blocks, 44_100, RATE).tobytes() == soxr.resample(samples, 44_100, RATE, "HQ").tobytes()


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "FLAC", "OGG", "MP3"])
def test_a_file_decoded_in_blocks_is_the_file_decoded_at_once(tmp_path: Path, kind: str) -> None:
    both = np.random.default_rng(0).uniform(-0.9, 0.9, (5 * 44_100 + 17, 2))
    path = tmp_path / f"noise.{kind.lower()}"
    soundfile.write(path, both, 44_100, format=kind)
    at_once, _ = soundfile.read(path, dtype="float32")
    assert read(path).channels.tobytes() == at_once.tobytes()


def test_a_long_file_never_lies_in_memory_with_all_its_channels(tmp_path: Path) -> None:
    seconds, rate, channels = 20, 96_000, 6
    content = np.random.default_rng(0).bytes(seconds * rate * channels)
    path = tmp_path / "long.wav"
    path.write_bytes(wav(content, tag=7, channels=channels, rate=rate, bits=8))  # mu-law
    tracemalloc.start()
    try:
        track = load(path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(track.samples) == seconds * RATE
    decoded, mono = 4 * len(content), track.samples.nbytes
    assert mono < most < mono + decoded / 8


# Loudness


def swelling() -> NDArray[np.float64]:
    return np.concatenate([tone(1_000, 2, level=level) for level in (0.05, 0.2, 0.1)])


@pytest.mark.parametrize("target", [-40.0, -23.0, -16.0])
def test_a_track_is_brought_to_a_loudness_as_a_whole(tmp_path: Path, target: float) -> None:
    path = written(tmp_path / "swells.wav", swelling(), subtype="FLOAT")
    plain, brought = load(path), load_track(path, RATE, SCREENING, loudness=target)
    assert integrated_loudness(brought.samples, RATE) == pytest.approx(target, abs=0.01)
    assert plain.gain == 1
    np.testing.assert_array_equal(brought.samples, plain.samples * np.float32(brought.gain))


def test_a_gain_stops_where_the_peak_reaches_full_scale(tmp_path: Path) -> None:
    track = load_track(written(tmp_path / "swells.wav", swelling()), RATE, SCREENING, loudness=-3.0)
    assert 0.9999 < np.abs(track.samples).max() <= 1
    assert integrated_loudness(track.samples, RATE) < -6


@pytest.mark.parametrize(
    ("samples", "reason", "detail"),
    [
        (tone(1_000, 0.39), "too_short", "0.39 s, and a loudness takes 0.4 s"),
        (tone(1_000, level=2e-4), "too_quiet", "nothing in it is louder than -70 LUFS"),
    ],
    ids=["short", "quiet"],
)
def test_what_has_no_loudness_is_refused(tmp_path: Path, samples: Audio, reason: str, detail: str) -> None:
    path = written(tmp_path / "song.wav", samples, subtype="FLOAT")
    assert len(load(path).samples) == len(samples)
    with pytest.raises(AudioError) as caught:
        load_track(path, RATE, SCREENING, loudness=-23)
    assert (caught.value.reason, caught.value.detail) == (reason, detail)


def test_a_gain_makes_no_sound_of_silence(tmp_path: Path) -> None:
    samples = np.concatenate([tone(1_000, 9, level=0.02), tone(1_000, 1, level=1e-4)])
    track = load_track(written(tmp_path / "fades.wav", samples, subtype="FLOAT"), RATE, SCREENING, loudness=-16)
    assert track.gain > 5
    with pytest.raises(AudioError, match=r"silent: RMS 7\.1e-05"):
        track.window(9 * RATE, RATE, SCREENING)


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


@pytest.mark.parametrize("claim", [0, 1 << 30, (1 << 36) - 1])
def test_a_flac_that_claims_more_than_it_can_hold_is_refused(claim: int) -> None:
    content = encode_flac(tone(1_000).astype(np.float32), RATE)
    assert len(decode_flac(content, RATE)) == RATE
    with pytest.raises(ValueError, match=r"samples in \d+ bytes"):
        decode_flac(flac_of(content, claim), RATE)

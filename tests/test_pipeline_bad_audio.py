"""Bad audio is refused with its reason, without a crash, a wait or a huge allocation; odd but good audio is taken."""

from __future__ import annotations

import os
import signal
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from make_audio import (
    ID3V1,
    RATE,
    Audio,
    ape,
    bare_mp3,
    chunk,
    encoded,
    flac_of,
    id3,
    noise,
    ogg_pages,
    pcm,
    tone,
    wav,
)

from pipeline import audio
from pipeline.audio import ScreeningConfig, Track, load_track
from shards.audio import AudioError, Samples, probe, read

SCREENING = ScreeningConfig()
MOST_MEMORY = 32 << 20
"""Bytes; the files of this module are smaller than a megabyte."""


@pytest.fixture(autouse=True)
def nothing_waits_for_ever() -> Iterator[None]:
    """A pipe that nobody writes to would stop all tests."""

    def stop(*_: object) -> None:
        raise TimeoutError("waited for a file that never comes")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


class Bad(NamedTuple):
    """What is wrong; how to make it (the bytes of a file, or a path made in a folder); what is said of it."""

    name: str
    make: Callable[[], bytes] | Callable[[Path], Path]
    reason: str
    detail: str


# What is no file


def linked(target: str) -> Callable[[Path], Path]:
    def link(folder: Path) -> Path:
        path = folder / "song.wav"
        path.symlink_to(target)
        return path

    return link


def folder_named_wav(folder: Path) -> Path:
    (folder / "song.wav").mkdir()
    return folder / "song.wav"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "song.wav")
    return folder / "song.wav"


def inside_a_file(folder: Path) -> Path:
    (folder / "song.wav").write_bytes(encoded(tone()))
    return folder / "song.wav" / "song.wav"


def name_of_another_age(folder: Path) -> Path:
    path = folder / os.fsdecode(b"caf\xe9.wav")
    path.write_bytes(encoded(tone()))
    return path


NO_FILES = [
    Bad("no file", lambda folder: folder / "song.wav", "missing", "no such file"),
    Bad("dangling link", linked("gone.wav"), "missing", "a link to a file that is not there"),
    Bad("link to itself", linked("song.wav"), "unreadable", "symbolic links"),
    Bad("folder", folder_named_wav, "unreadable", "a folder"),
    Bad("pipe", pipe, "unreadable", "pipe"),
    Bad("device that never ends", linked("/dev/zero"), "unreadable", "device"),
    Bad("file as a folder", inside_a_file, "missing", "no such file"),
    Bad("name too long", lambda folder: folder / ("x" * 300 + ".wav"), "unreadable", "too long"),
    Bad("name with a zero byte", lambda folder: folder / "a\0b.wav", "unreadable", "null byte"),
    Bad("name that is no UTF-8", name_of_another_age, "unreadable", "its name is no UTF-8"),
]

# What is no sound file


def random_bytes() -> bytes:
    return np.random.default_rng(0).bytes(50_000)


SOUND = encoded(tone())
NOT_SOUND = [
    Bad("zero bytes", lambda: b"", "empty", "no bytes"),
    Bad("text", lambda: b"this is a song\n" * 99, "unreadable", "Format not recognised"),
    Bad("random bytes", random_bytes, "unreadable", "Format not recognised"),
    Bad("wrong magic", lambda: b"XIFF" + SOUND[4:], "unreadable", "Format not recognised"),
    Bad("wrong form", lambda: SOUND[:8] + b"WAVX" + SOUND[12:], "unreadable", ""),
    Bad("MP3 that is a tag alone", lambda: id3(5_000), "unreadable", "Format not recognised"),
    Bad("AU named WAV", lambda: encoded(tone(), "AU", "PCM_16"), "unsupported", "AU"),
]

# Headers

HEADERS = [
    Bad("header cut", lambda: SOUND[:30], "unreadable", "data"),
    Bad("header cut in the last byte", lambda: SOUND[:43], "empty", "no samples"),
    Bad("header alone", lambda: SOUND[:44], "truncated", "48000 of 48000 bytes"),
    Bad("no data chunk", lambda: SOUND[:36], "unreadable", "data"),
    Bad("data of no length", lambda: wav(b""), "empty", "no samples"),
    Bad("unknown codec", lambda: wav(pcm(tone()), tag=0x1234), "unreadable", ""),
    Bad("no channels", lambda: wav(pcm(tone()), channels=0, block=2), "unreadable", "Channel count is zero"),
    Bad("rate of zero", lambda: wav(pcm(tone()), rate=0), "unreadable", ""),
    Bad("block of zero", lambda: wav(pcm(tone()), block=0), "unreadable", "0 bytes to 1 samples of 16 bits"),
    Bad("block too small", lambda: wav(pcm(tone()), block=2, bits=17), "unreadable", "2 bytes to 1 samples of 17 bits"),
    Bad("no bits", lambda: wav(pcm(tone()), block=2, bits=0), "unreadable", ""),
    Bad("1000 channels", lambda: wav(pcm(tone()), channels=1_000), "unsupported", "1000 channels"),
    Bad("60000 channels", lambda: wav(pcm(tone()), channels=60_000, block=60_000 % 65_536), "unreadable", ""),
    Bad("rate of 1 Hz", lambda: wav(pcm(tone()), rate=1), "unsupported", "1 samples a second"),
    Bad("rate of 2 GHz", lambda: wav(pcm(tone()), rate=2_000_000_000), "unsupported", "2000000000 samples a second"),
    Bad("claim of 4 GB", lambda: wav(pcm(tone()), claimed=0xF0000000), "truncated", "of 4026531840 bytes"),
]

# Sound that is cut, or damaged

RF64 = encoded(tone(), "RF64", "PCM_16")
W64 = encoded(tone(), "W64", "PCM_16")
AIFF = encoded(tone(), "AIFF", "PCM_16")
FLAC = encoded(noise(), "FLAC")
OGG = encoded(noise(), "OGG", "VORBIS")
OPUS = encoded(noise(), "OGG", "OPUS")
MP3 = encoded(noise(), "MP3")


def most_of(content: bytes) -> Callable[[], bytes]:
    return lambda: content[: len(content) * 3 // 4]


def flipped(content: bytes, share: float = 0.5) -> Callable[[], bytes]:
    def flip() -> bytes:
        changed = bytearray(content)
        changed[int(len(content) * share)] ^= 0x55
        return bytes(changed)

    return flip


def without_its_sound() -> bytes:
    place = AIFF.index(b"SSND")
    return AIFF[:4] + struct.pack(">I", place - 8) + AIFF[8:place]


def claiming_an_exabyte() -> bytes:
    place = RF64.index(b"ds64") + 16
    return RF64[:place] + struct.pack("<Q", 1 << 60) + RF64[place + 8 :]


def w64_claiming_an_exabyte() -> bytes:
    place = W64.index(b"data\xf3\xac\xd3\x11") + 16
    return W64[:place] + struct.pack("<Q", 1 << 60) + W64[place + 8 :]


def with_a_hole(content: bytes) -> Callable[[], bytes]:
    middle = len(content) // 2
    return lambda: content[:middle] + content[middle + 3_000 :]


def with_garbage_within() -> bytes:
    middle = len(MP3) // 2
    return MP3[:middle] + random_bytes()[:3_000] + MP3[middle + 3_000 :]


def without_last_frames() -> bytes:
    frames = [place for place in range(len(MP3)) if MP3[place : place + 2] == MP3[:2]]
    return MP3[: frames[-3]]


CUT = [
    Bad("WAV", most_of(SOUND), "truncated", "of 48000 bytes of sound are missing"),
    Bad("WAV by a byte", lambda: SOUND[:-1], "truncated", "1 of 48000 bytes"),
    Bad("WAV of floats", lambda: encoded(tone(), "WAV", "FLOAT")[:-4], "truncated", "4 of 96000 bytes"),
    Bad("big-endian WAV", lambda: encoded(tone(), "WAV", "PCM_16", endian="BIG")[:-2], "truncated", "2 of 48000"),
    Bad("RF64", most_of(RF64), "truncated", "of 48000 bytes"),
    Bad("RF64 of an exabyte", claiming_an_exabyte, "truncated", f"of {1 << 60} bytes"),
    Bad("W64", most_of(W64), "truncated", "of 48000 bytes"),
    Bad("W64 of an exabyte", w64_claiming_an_exabyte, "truncated", f"of {(1 << 60) - 24} bytes"),
    Bad("AIFF", most_of(AIFF), "truncated", "of 48008 bytes"),
    Bad("AIFF without sound", without_its_sound, "unreadable", ""),
    Bad("FLAC", most_of(FLAC), "truncated", "the bytes end after"),
    Bad("FLAC by a byte", lambda: FLAC[:-1], "truncated", "the bytes end after"),
    Bad("FLAC without frames", lambda: FLAC[: 4 + 38], "truncated", ""),
    Bad("FLAC with a byte flipped", flipped(FLAC), "unreadable", "of 48000 samples"),
    Bad("FLAC of 2^36 samples", lambda: flac_of(FLAC, (1 << 36) - 1), "truncated", ""),
    Bad("Ogg", most_of(OGG), "truncated", "the last page is cut"),
    Bad("Ogg by a byte", lambda: OGG[:-1], "truncated", "the last page is cut"),
    Bad("Ogg by a page", lambda: b"".join(ogg_pages(OGG)[:-1]), "truncated", "no page ends the stream"),
    Bad("Ogg within a page's header", lambda: b"".join(ogg_pages(OGG)[:-1]) + b"OggS\0", "truncated", "after 5 bytes"),
    Bad("Ogg without sound", lambda: b"".join(ogg_pages(OGG)[:2]), "truncated", "no page ends the stream"),
    Bad("Ogg with a byte flipped", flipped(OGG), "truncated", "samples are missing"),
    Bad("Ogg without its second half's first page", with_a_hole(OGG), "truncated", ""),
    Bad("Ogg of two streams", lambda: OGG + OGG, "unsupported", f"a second stream starts at byte {len(OGG)}"),
    Bad("Opus", most_of(OPUS), "truncated", "the last page is cut"),
    Bad("MP3", most_of(MP3), "truncated", "bytes of the last frame are missing"),
    Bad("MP3 by a byte", lambda: MP3[:-1], "truncated", "1 of"),
    Bad("MP3 by frames", without_last_frames, "truncated", "frames are missing"),
    Bad("MP3 by a byte, before a tag", lambda: MP3[:-1] + ID3V1, "truncated", "1 of"),
    Bad("MP3 that tells no length", lambda: bare_mp3()[:-100], "truncated", "100 of"),
    Bad("MP3 with a hole", with_a_hole(MP3), "truncated", ""),
    Bad("MP3 with garbage within", with_garbage_within, "truncated", "frames are missing"),
]

# Sound that is of no use


def with_value(value: float, place: int, channel: int = 0) -> Callable[[], bytes]:
    def make() -> bytes:
        samples = np.stack([tone(), tone()], axis=1)
        samples[place, channel] = value
        return encoded(samples, "WAV", "FLOAT")

    return make


def unlike(share: float) -> Callable[[], bytes]:
    """Two channels, the second the opposite of the first but for a share of another tone."""
    return lambda: encoded(np.stack([tone(), -tone() + tone(3_000, level=0.5 * share)], axis=1))


USELESS = [
    Bad("NaN", with_value(np.nan, 777), "not_finite", "sample 777 of channel 1 is nan"),
    Bad("NaN at the very end", with_value(np.nan, RATE - 1, 1), "not_finite", "sample 23999 of channel 2 is nan"),
    Bad("infinity", with_value(-np.inf, 0), "not_finite", "sample 0 of channel 1 is -inf"),
    Bad("louder than any sound", with_value(3e38, 9_999, 1), "not_finite", "sample 9999 of channel 2 is 3e+38"),
    Bad("all silent", lambda: encoded(np.zeros(RATE)), "silent", "moves by 0"),
    Bad("nothing but noise of the last bit", lambda: encoded(noise(level=1e-5)), "silent", ""),
    Bad("constant", lambda: encoded(np.full(RATE, 0.5)), "silent", "moves by 0"),
    Bad("constant, on both channels", lambda: encoded(np.full((RATE, 2), -0.3)), "silent", "moves by 0"),
    Bad("too quiet to hear", lambda: encoded(tone(level=1.3e-4), "WAV", "FLOAT"), "silent", "RMS 9.2e-05"),
    Bad("square", lambda: encoded(np.sign(tone())), "clipped", "100.0% of the samples"),
    Bad("clipped", lambda: encoded(np.clip(tone(level=2), -1, 1)), "clipped", "% of the samples at full scale"),
    Bad("clipped on one side", lambda: encoded(np.clip(tone(level=1.5), -0.5, 1)), "clipped", "%"),
    Bad("clipped at 8 bits", lambda: encoded(np.clip(tone(level=2), -1, 1), "WAV", "PCM_U8"), "clipped", "%"),
    Bad("clipped on one channel", lambda: encoded(np.stack([tone(), np.sign(tone())], axis=1)), "clipped", "50.0%"),
    Bad("opposite phase", unlike(0), "cancelling", "the channels' RMS is 0.35, that of their mix"),
    Bad("nearly opposite phase", unlike(0.05), "cancelling", "the channels' RMS is 0.35, that of their mix 0.0088"),
    Bad("shorter than the window", lambda: encoded(tone(seconds=0.9)), "too_short", "0.90 windows long"),
    Bad("one sample", lambda: wav(pcm(np.array([0.5]))), "silent", ""),
    Bad("two samples", lambda: wav(pcm(np.array([0.5, -0.5]))), "too_short", "0.00 windows long"),
]

BAD = [*NO_FILES, *NOT_SOUND, *HEADERS, *CUT, *USELESS]


def made(bad: Bad, folder: Path) -> Path:
    """The path of a bad file; its name says WAV, as a wrong name must not matter."""
    if bad in NO_FILES:
        return bad.make(folder)  # type: ignore[call-arg, return-value]
    path = folder / "song.wav"
    path.write_bytes(bad.make())  # type: ignore[call-arg, arg-type]
    return path


def load(path: Path) -> Track:
    return load_track(path, RATE, SCREENING)


@pytest.mark.parametrize("bad", BAD, ids=[f"{bad.reason}: {bad.name}" for bad in BAD])
def test_bad_audio_is_refused_with_its_reason(tmp_path: Path, bad: Bad) -> None:
    path = made(bad, tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(AudioError) as caught:
            load(path).window(0, RATE, SCREENING)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.reason == bad.reason
    assert bad.detail in caught.value.detail
    assert most < MOST_MEMORY
    message = str(caught.value)
    assert message.startswith(f"{path}: {bad.reason.replace('_', ' ')}: {caught.value.detail}; ")
    assert "\n" not in message


@pytest.mark.parametrize("door", [read, probe])
@pytest.mark.parametrize("bad", NO_FILES, ids=[bad.name for bad in NO_FILES])
def test_every_door_refuses_what_is_no_file(tmp_path: Path, bad: Bad, door: Callable[[Path], object]) -> None:
    with pytest.raises(AudioError) as caught:
        door(made(bad, tmp_path))
    assert caught.value.reason == bad.reason


@pytest.mark.parametrize("bad", CUT, ids=[bad.name for bad in CUT])
def test_a_whole_file_read_for_generation_is_refused_where_it_is_cut(tmp_path: Path, bad: Bad) -> None:
    with pytest.raises(AudioError) as caught:
        read(made(bad, tmp_path))
    assert caught.value.reason == bad.reason


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file here fails to be read")
def test_a_disk_that_fails_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="unreadable: Input/output error"):
        load(linked("/proc/self/mem")(tmp_path))


def test_a_file_changed_since_it_was_paired_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(SOUND)
    paired = load(path).sha256
    assert load_track(path, RATE, SCREENING, expected_sha256=paired).sha256 == paired
    path.write_bytes(encoded(tone(1_001)))
    with pytest.raises(AudioError, match="pair again") as caught:
        load_track(path, RATE, SCREENING, expected_sha256=paired)
    assert caught.value.reason == "changed"
    assert f"was {paired[:12]}" in caught.value.detail


def test_a_file_that_is_still_being_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(SOUND)

    def mix_while_somebody_writes(channels: Samples) -> Samples:
        with path.open("ab") as file:
            file.write(b"more")
        return mix(channels)

    mix = audio.mix
    monkeypatch.setattr(audio, "mix", mix_while_somebody_writes)
    with pytest.raises(AudioError) as caught:
        load(path)
    assert caught.value.reason == "changed"


# Windows of a track that is good elsewhere


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (np.zeros((RATE, 2)), "silent"),
        (np.full((RATE, 2), 0.25), "silent"),
        (np.stack([tone(), -tone()], axis=1), "cancelling"),
        (np.stack([tone(), -0.98 * tone()], axis=1), "cancelling"),
    ],
    ids=["silence", "a constant", "opposite phase", "nearly opposite phase"],
)
@pytest.mark.parametrize("rate", [24_000, 44_100])
def test_a_bad_window_does_not_spoil_the_rest(tmp_path: Path, first: np.ndarray, reason: str, rate: int) -> None:
    path = tmp_path / "song.wav"
    good = np.stack([0.02 * tone(300), 0.02 * tone(300)], axis=1)
    sound = np.concatenate([good, first, good])
    seconds = np.arange(3 * rate) / rate
    stretched = np.stack([np.interp(seconds, np.arange(3 * RATE) / RATE, channel) for channel in sound.T], axis=1)
    path.write_bytes(encoded(stretched, "WAV", "FLOAT", rate))
    track = load(path)
    for place in (0, 2):
        assert len(track.window(place * RATE, RATE, SCREENING)) == RATE
    with pytest.raises(AudioError) as caught:
        # A resampler rings for a moment where a constant starts.
        track.window(RATE + 200, RATE - 400, SCREENING)
    assert caught.value.reason == reason
    assert f"from sample {RATE + 200} on" in caught.value.detail


# Odd, but good


class Good(NamedTuple):
    """A file with a tone of 1 kHz at half of full scale: how to make it, and its length in seconds."""

    name: str
    make: Callable[[], bytes]
    seconds: float = 1.0


def kind(container: str, subtype: str, rate: int = RATE, channels: int = 1, **options: object) -> Good:
    def make() -> bytes:
        return encoded(np.stack([tone(rate=rate)] * channels, axis=1), container, subtype, rate, **options)

    return Good(f"{container} {subtype} {rate} Hz {channels} channels {' '.join(options)}".strip(), make)


def eight_bits(samples: Audio) -> bytes:
    return np.round(samples * 127 + 128).astype(np.uint8).tobytes()


def w64_of_a_pipe() -> bytes:
    place = W64.index(b"data\xf3\xac\xd3\x11") + 16
    return W64[:place] + struct.pack("<Q", (1 << 63) - 1) + W64[place + 8 :]


TEXT = chunk(b"LIST", b"INFOINAM\x06\0\0\0a song")
ODD = chunk(b"junk", b"odd")
TONE_MP3 = encoded(tone(rate=44_100), "MP3", rate=44_100)
TONE_FLAC = encoded(tone(), "FLAC", "PCM_16")
TONE_OGG = encoded(tone(), "OGG", "VORBIS")

GOOD = [
    *(kind("WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")),
    *(kind("WAVEX", subtype) for subtype in ("PCM_16", "PCM_24", "FLOAT")),
    *(kind("RF64", subtype) for subtype in ("PCM_16", "PCM_24", "FLOAT")),
    *(kind("W64", subtype) for subtype in ("PCM_16", "PCM_24", "FLOAT")),
    *(kind("AIFF", subtype) for subtype in ("PCM_S8", "PCM_16", "PCM_24", "FLOAT", "ULAW")),
    *(kind("FLAC", subtype) for subtype in ("PCM_S8", "PCM_16", "PCM_24")),
    *(kind("WAV", "PCM_16", rate) for rate in (8_000, 192_000)),
    *(kind(container, subtype, 48_000, 6) for container, subtype in (("WAV", "PCM_24"), ("FLAC", "PCM_16"))),
    kind("WAV", "PCM_16", endian="BIG"),
    kind("AIFF", "PCM_16", endian="LITTLE"),
    kind("OGG", "VORBIS", 44_100, 2),
    kind("OGG", "OPUS", 48_000, 2),
    *(kind("MP3", "MPEG_LAYER_III", rate) for rate in (11_025, 22_050, 48_000)),
    kind("MP3", "MPEG_LAYER_III", 44_100, 2, bitrate_mode="VARIABLE"),
    Good("ADPCM, whose last block is padded", lambda: encoded(tone(), "WAV", "IMA_ADPCM")),
    Good("8 bits and an odd length", lambda: wav(eight_bits(tone()) + b"\x80", bits=8)),
    Good("text before the sound", lambda: wav(pcm(tone()), before=TEXT)),
    Good("text behind the sound", lambda: wav(pcm(tone()), behind=TEXT)),
    Good("an odd chunk before the sound", lambda: wav(pcm(tone()), before=ODD)),
    Good("an odd chunk behind the sound, cut", lambda: wav(pcm(tone()), behind=ODD)[:-3]),
    Good("junk behind the WAV", lambda: wav(pcm(tone())) + random_bytes()[:999]),
    *(
        Good(f"WAV of a pipe, {claimed:#x}", lambda claimed=claimed: wav(pcm(tone()), claimed=claimed))
        for claimed in (0xFFFFFFFF, 0x7FFFF000)
    ),
    Good("W64 of a pipe", w64_of_a_pipe),
    Good("FLAC of a pipe", lambda: flac_of(TONE_FLAC, 0)),
    Good("tags around the FLAC", lambda: id3() + TONE_FLAC + ID3V1),
    Good("tag behind the Ogg", lambda: TONE_OGG + ID3V1),
    Good("tags around the MP3", lambda: id3(20_000) + TONE_MP3 + ape() + ID3V1),
    Good("two tags before the MP3", lambda: id3() + id3(3_000) + TONE_MP3),
    Good("zeros behind the MP3", lambda: TONE_MP3 + bytes(5_000)),
    Good("MP3 that tells no length", lambda: bare_mp3(1), 1.05),
    Good("tags around the MP3 that tells no length", lambda: id3(20_000) + bare_mp3(1) + ape(9_000) + ID3V1, 1.05),
    Good("zeros behind the MP3 that tells no length", lambda: bare_mp3(1) + bytes(5_000), 1.05),
    Good("one channel of two", lambda: encoded(np.stack([2 * tone(level=0.49), 0 * tone()], axis=1))),
    Good("a constant beside the tone", lambda: encoded(tone() + 0.25)),
    Good("a single sample at full scale", lambda: encoded(np.append(tone()[:-1], 1.0))),
]


def amplitude(samples: Samples) -> float:
    """Of 1 kHz, in the middle half of a second."""
    middle = samples[RATE // 4 : 3 * RATE // 4].astype(np.float64)
    window = np.hanning(len(middle))
    return float(2 * abs(np.sum(middle * window * np.exp(-2j * np.pi * np.arange(len(middle)) / 24))) / window.sum())


@pytest.mark.parametrize("good", GOOD, ids=[good.name for good in GOOD])
def test_odd_but_good_audio_is_taken_whole(tmp_path: Path, good: Good) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(good.make())
    track = load(path)
    assert len(track.samples) / RATE == pytest.approx(good.seconds, abs=0.03)
    window = track.window(0, min(len(track.samples), RATE), SCREENING)
    assert amplitude(window) == pytest.approx(0.5, rel=0.02)
    assert read(path).mono(RATE).tobytes() == track.samples.tobytes()
    assert probe(path).seconds == pytest.approx(len(track.samples) / RATE, abs=0.03)

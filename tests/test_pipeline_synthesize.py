"""Synthetic pairs: the same seed gives the same music, drums are rhythmic, a piano plays the chords it names."""

import itertools
import json

import numpy as np
import pytest

from pipeline.synthesize import SAMPLE_RATE, Pair, split_of, synthesize_pair
from pipeline.synthesize.drum_patterns import DRUM_PATTERNS, FILLS, STROKES
from pipeline.synthesize.drums import perform
from pipeline.synthesize.harmony import PROGRESSIONS, bass_of, chord_of, voicing_of
from pipeline.synthesize.piano_styles import PIANO_STYLES, STEPS_PER_BAR
from pipeline.synthesize.signal import at_level, damped_sines
from shards.errors import MisuseError

PAIRS = 30
SECONDS = 4.0


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return [synthesize_pair(7, index, SECONDS) for index in range(PAIRS)]


def frames_of(audio: np.ndarray, size: int, hop: int) -> np.ndarray:
    """Windowed frames [count, size] of audio [n]."""
    starts = range(0, len(audio) - size, hop)
    return np.stack([audio[start : start + size] for start in starts]) * np.hanning(size)


def flatness(audio: np.ndarray) -> float:
    """Geometric over arithmetic mean of the mean power spectrum: 1 for white noise, 0 for sines."""
    power = np.mean(np.abs(np.fft.rfft(frames_of(audio, 1024, 512))) ** 2, axis=0) + 1e-12
    return float(np.exp(np.mean(np.log(power))) / np.mean(power))


def chroma(audio: np.ndarray) -> np.ndarray:
    """Share of each pitch class [12] in the energy of audio [n] between 60 and 1500 Hz."""
    power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
    frequencies = np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)
    heard = (frequencies > 60) & (frequencies < 1500)
    classes = np.round(69 + 12 * np.log2(frequencies[heard] / 440)).astype(int) % 12
    energy = np.bincount(classes, power[heard], minlength=12)
    return energy / energy.sum()


def beat_autocorrelation(audio: np.ndarray, hop: int = 120) -> np.ndarray:
    """Autocorrelation, by lags of 5 ms, of how much the log spectrum of audio [n] rises from frame to frame."""
    spectrum = np.log1p(100 * np.abs(np.fft.rfft(frames_of(audio, 512, hop))))
    onsets = np.maximum(np.diff(spectrum, axis=0), 0).sum(axis=1)
    onsets -= onsets.mean()
    size = 2 * len(onsets)
    correlation = np.fft.irfft(np.abs(np.fft.rfft(onsets, size)) ** 2)[: len(onsets)]
    return correlation / correlation[0]


def test_the_same_arguments_give_the_same_samples():
    first, again = synthesize_pair(3, 4, 2.0), synthesize_pair(3, 4, 2.0)
    assert first.drums.tobytes() == again.drums.tobytes()
    assert first.piano.tobytes() == again.piano.tobytes()
    assert first.description == again.description


@pytest.mark.parametrize(("seed", "index"), [(3, 5), (4, 4)])
def test_another_seed_or_index_gives_other_music(seed, index):
    first, other = synthesize_pair(3, 4, 1.0), synthesize_pair(seed, index, 1.0)
    assert not np.allclose(first.drums, other.drums, atol=1e-2)
    assert not np.allclose(first.piano, other.piano, atol=1e-2)


@pytest.mark.parametrize("seconds", [0.25, 0.5, 2.0, 3.337, 1.00001])
def test_lengths_are_exact(seconds):
    pair = synthesize_pair(0, 1, seconds)
    assert pair.drums.shape == pair.piano.shape == (round(seconds * SAMPLE_RATE),)
    assert pair.drums.dtype == pair.piano.dtype == np.float32
    assert pair.description["seconds"] == round(seconds * SAMPLE_RATE) / SAMPLE_RATE


@pytest.mark.parametrize("side", ["drums", "piano"])
def test_levels(pairs, side):
    for pair in pairs:
        audio = getattr(pair, side).astype(np.float64)
        assert np.isfinite(audio).all()
        assert np.abs(audio).max() <= 0.95
        assert 0.05 <= np.sqrt(np.mean(audio**2)) <= 0.2
        assert abs(audio.mean()) < 1e-6
        # Resting on the limiter would be clipping by another name.
        assert np.mean(np.abs(audio) > 0.85) < 0.005


@pytest.mark.parametrize("side", ["drums", "piano"])
def test_nothing_falls_silent_for_long(side):
    for index in range(8):
        audio = np.abs(getattr(synthesize_pair(1, index, 12.0), side))
        loud = np.flatnonzero(audio > 0.003)
        gaps = np.diff(loud, prepend=0, append=len(audio))
        assert gaps.max() < 1.5 * SAMPLE_RATE


def test_recordings_end_without_a_click(pairs):
    for pair in pairs:
        assert abs(pair.drums[-1]) < 1e-3
        assert abs(pair.piano[-1]) < 1e-3


def test_variety(pairs):
    descriptions = [pair.description for pair in pairs]
    for tempo in ("drum_tempo", "piano_tempo"):
        tempi = {description[tempo] for description in descriptions}
        assert all(70 <= value <= 160 for value in tempi)
        assert len(tempi) > PAIRS // 2
        assert max(tempi) - min(tempi) > 50
    for what, least in {"key": 10, "mode": 2, "drum_pattern": 6, "piano_style": 6, "progression": 9}.items():
        assert len({description[what] for description in descriptions}) >= least, what


def test_most_pairs_share_their_tempo_and_the_rest_do_not(pairs):
    sharing = [pair.description["shares_tempo"] for pair in pairs]
    assert 0.5 <= np.mean(sharing) <= 0.9
    for pair in pairs:
        same = pair.description["drum_tempo"] == pair.description["piano_tempo"]
        assert same == pair.description["shares_tempo"]


def test_descriptions_are_json(pairs):
    for pair in pairs:
        assert json.loads(json.dumps(pair.description)) == pair.description


def test_drums_are_noisier_than_pianos(pairs):
    for pair in pairs:
        assert flatness(pair.drums) > 3 * flatness(pair.piano)


def test_the_piano_plays_the_chords_it_names(pairs):
    shares = []
    for pair in pairs:
        length = pair.description["chord_seconds"]
        for number, classes in enumerate(pair.description["chord_pitch_classes"]):
            start, stop = ((number + place) * length * SAMPLE_RATE for place in (0.1, 0.95))
            if stop <= len(pair.piano):
                shares.append(chroma(pair.piano[int(start) : int(stop)])[classes].sum())
    assert len(shares) > PAIRS
    assert np.mean(shares) > 0.85
    assert np.min(shares) > 0.5


def test_drums_keep_the_beat():
    heights = []
    for index in range(12):
        pair = synthesize_pair(2, index, 8.0)
        correlation = beat_autocorrelation(pair.drums)
        beat = 60 / pair.description["drum_tempo"] * 200
        around = correlation[round(0.96 * beat) : round(1.04 * beat) + 1]
        typical = np.median(correlation[round(0.4 * beat) : round(2.2 * beat)])
        heights.append(around.max() - typical)
    assert np.min(heights) > 0.05
    assert np.mean(heights) > 0.2


def test_hats_are_choked_by_the_next_stroke_on_them():
    rng = np.random.default_rng(0)
    for pattern in DRUM_PATTERNS:
        strokes = perform(rng, pattern, pattern.tempo[0], 10.0)
        hats = [stroke for stroke in strokes if stroke.voice.endswith("_hat")]
        assert all(hat.stop == following.start for hat, following in itertools.pairwise(hats))
        assert [stroke.start for stroke in strokes] == sorted(stroke.start for stroke in strokes)
        assert all(stroke.stop is None for stroke in strokes if not stroke.voice.endswith("_hat"))


def test_grids_are_as_long_as_their_bars():
    for pattern in DRUM_PATTERNS:
        assert pattern.steps in FILLS
        for grid in (grid for bar in pattern.bars for grid in bar.values()):
            assert len(grid) == pattern.steps
            assert set(grid) <= {*STROKES, "."}
        assert 70 <= pattern.tempo[0] < pattern.tempo[1] <= 160
    for steps, fills in FILLS.items():
        assert all(len(grid) == steps // 2 for fill in fills for grid in fill.values())
    for style in PIANO_STYLES:
        assert all(len(grid) == STEPS_PER_BAR for bar in style.bars for grid in bar.values())


@pytest.mark.parametrize(
    ("tonic", "numeral", "symbol", "classes"),
    [
        (0, "I", "C", (0, 4, 7)),
        (0, "ii7", "Dm7", (2, 5, 9, 0)),
        (9, "bVImaj7", "Fmaj7", (5, 9, 0, 4)),
        (2, "ii7b5", "Em7b5", (4, 7, 10, 2)),
        (0, "V9", "G9", (7, 9, 11, 2, 5)),
    ],
)
def test_roman_numerals(tonic, numeral, symbol, classes):
    chord = chord_of(tonic, numeral)
    assert chord.symbol == symbol
    assert chord.pitch_classes == classes


@pytest.mark.parametrize("numeral", ["", "H", "IIII", "Imaj13", "1"])
def test_what_is_no_numeral_is_refused(numeral):
    with pytest.raises(ValueError, match=r"numeral|quality"):
        chord_of(0, numeral)


def test_voices_move_little_between_chords():
    for mode, progressions in PROGRESSIONS.items():
        for name, numerals in progressions.items():
            voicing = bass = None
            for numeral in 2 * numerals.split():
                chord = chord_of(5, numeral)
                before, voicing, bass = voicing, voicing_of(chord, voicing), bass_of(chord, bass)
                assert {note % 12 for note in voicing} <= set(chord.pitch_classes)
                assert bass % 12 == chord.root
                assert bass < voicing[0]
                if before is not None:
                    assert abs(np.mean(voicing) - np.mean(before)) < 4, (mode, name)


def test_damped_sines_equal_their_formula():
    frequencies, decays = np.array([110.0, 447.3]), np.array([1.0, 6.0])
    amplitudes = np.array([0.5 + 0.2j, -0.3j])
    t = np.arange(5001) / SAMPLE_RATE
    phasors = amplitudes[:, None] * np.exp(np.outer(2j * np.pi * frequencies - decays, t))
    tone = damped_sines(frequencies, decays, amplitudes, len(t))
    np.testing.assert_allclose(tone, phasors.sum(axis=0).real, atol=1e-5)


def test_a_single_peak_does_not_break_the_ceiling():
    click = np.zeros(4800, np.float32)
    click[100] = 1.0
    assert np.abs(at_level(click, 0.1)).max() <= 0.95
    assert not at_level(np.zeros(480, np.float32), 0.1).any()


@pytest.mark.parametrize(("pairs", "validation"), [(1, 0), (2, 1), (3, 1), (5, 1), (6, 1), (7, 1), (24, 4), (60, 10)])
def test_one_in_six_validates(pairs, validation):
    splits = [split_of(index, pairs) for index in range(pairs)]
    assert splits.count("val") == validation
    assert splits.count("train") == pairs - validation


@pytest.mark.parametrize(("index", "pairs"), [(-1, 4), (4, 4), (0, 0)])
def test_an_index_outside_has_no_split(index, pairs):
    with pytest.raises(MisuseError, match="outside"):
        split_of(index, pairs)


@pytest.mark.parametrize(("seed", "index", "seconds"), [(0, 0, 0.1), (0, 0, float("nan")), (-1, 0, 1.0), (0, -1, 1.0)])
def test_what_can_not_be_made_is_refused(seed, index, seconds):
    with pytest.raises(MisuseError):
        synthesize_pair(seed, index, seconds)

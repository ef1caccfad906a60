"""What both instruments need: noise, mixing, a room and a recording level. Plain numpy, float32 audio [n]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]

SAMPLE_RATE = 24_000
CEILING = 0.9
_KNEE = 0.6
_HOTTEST_PEAK = 1.25
_ROWS_AT_ONCE = 4


def times(seconds: float) -> NDArray[np.float64]:
    """Sample times [round(seconds * SAMPLE_RATE)] in seconds, from 0."""
    return np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def band_noise(rng: np.random.Generator, samples: int, low: float, high: float) -> Audio:
    """Noise [samples] of RMS 1 between `low` and `high` Hz, with slopes of 24 dB an octave."""
    size = _fft_size(samples)
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    response = 1 / (1 + (frequencies / high) ** 4)
    response[1:] /= 1 + (low / frequencies[1:]) ** 4
    response[0] = 0
    spectrum = np.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    noise = np.fft.irfft(spectrum * response.astype(np.float32), size)[:samples]
    level = np.sqrt(np.mean(noise**2))
    return np.asarray(noise / level, dtype=np.float32)


def damped_sines(
    frequencies: NDArray[np.float64],
    decays: NDArray[np.float64],
    amplitudes: NDArray[np.complex128],
    samples: int,
) -> Audio:
    """Sum the sines of [P] frequencies (Hz), decays (1/s) and complex amplitudes over [samples].

    A damped sine at time `a + b` is the product of its values at `a` and at `b`. So the sum over P partials
    at all times is a matrix product, instead of P sines as long as the tone. It is taken a few rows at a time:
    a product that small is never spread over threads, whose number would show in the last bits.
    """
    block = 256
    blocks = _ROWS_AT_ONCE * -(-samples // (block * _ROWS_AT_ONCE))
    rates = (2j * np.pi * frequencies - decays) / SAMPLE_RATE
    coarse = amplitudes * np.exp(np.outer(np.arange(blocks) * block, rates))
    fine = np.exp(np.outer(rates, np.arange(block)))
    left = np.concatenate((coarse.real, -coarse.imag), axis=1).astype(np.float32)
    right = np.concatenate((fine.real, fine.imag), axis=0).astype(np.float32)
    tone: Audio = (left.reshape(-1, _ROWS_AT_ONCE, left.shape[1]) @ right).reshape(-1)[:samples]
    return tone


def fade_out(sound: NDArray[np.floating], share: float = 0.15) -> Audio:
    """Bring the last `share` of a sound [n] to zero along a cosine, so that its end makes no click."""
    faded = sound.astype(np.float32)
    length = max(1, round(share * len(faded)))
    faded[-length:] *= 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, length, dtype=np.float32))
    return faded


def add_sound(
    track: Audio, sound: Audio, start: float, gain: float, stop: float | None = None, release: float = 0.05
) -> None:
    """Add `gain * sound` [m] to `track` [n] in place from `start` seconds on.

    From `stop` seconds on (None: never) the sound is damped and ends within six times `release` seconds. What
    lies beyond the track's end is dropped.
    """
    first = max(0, round(start * SAMPLE_RATE))
    length = min(len(sound), len(track) - first)
    if stop is not None:
        tail = round(6 * release * SAMPLE_RATE)
        held = max(1, round(stop * SAMPLE_RATE) - first)
        length = min(length, held + tail)
    if length <= 0:
        return
    piece = np.float32(gain) * sound[:length]
    if stop is not None and held < length:
        since = np.arange(length - held, dtype=np.float32)
        piece[held:] *= np.exp(-since / np.float32(release * SAMPLE_RATE)) * (1 - since / tail)
    track[first : first + length] += piece


def in_room(rng: np.random.Generator, dry: Audio, decay: float, wet: float) -> Audio:
    """Place audio [n] in a small room and remove what lies below hearing; returns audio [n].

    `decay` is the time in seconds in which the room falls by 60 dB, `wet` the level of the room beside the
    dry sound. The room is noise that decays and darkens, convolved by FFT together with a 25 Hz high-pass.
    """
    delay = round(rng.uniform(0.006, 0.014) * SAMPLE_RATE)
    tail = times(decay)
    bright = band_noise(rng, len(tail), 300, 7000) * np.exp(-13.8 * tail / decay)
    dark = band_noise(rng, len(tail), 120, 2000) * np.exp(-6.9 * tail / decay)
    response = np.zeros(delay + len(tail), np.float32)
    response[delay:] = bright + dark
    response *= np.float32(wet / np.sqrt(np.sum(response**2)))
    response[0] = 1

    size = _fft_size(len(dry) + len(response))
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    high_pass = ((1j * frequencies) / (1j * frequencies + 25)) ** 2
    spectrum = np.fft.rfft(dry, size) * np.fft.rfft(response, size) * high_pass.astype(np.complex64)
    return np.fft.irfft(spectrum, size)[: len(dry)].astype(np.float32)


def at_level(audio: Audio, rms: float) -> Audio:
    """Scale audio [n] to an RMS of at most `rms`, round its peaks off below CEILING and remove DC.

    A soft knee keeps the body of the sound untouched: scaling by the peak alone would make the level of a
    recording hang on its one loudest stroke. Peaks too far above the knee lower the level instead.
    """
    level = float(np.sqrt(np.mean(np.square(audio), dtype=np.float64)))
    peak = float(np.max(np.abs(audio)))
    scaled = audio * np.float32(min(rms / max(level, 1e-9), _HOTTEST_PEAK / max(peak, 1e-9)))
    edge = min(len(scaled), round(0.005 * SAMPLE_RATE))
    scaled[-edge:] *= np.linspace(1, 0, edge, dtype=np.float32)
    over = np.abs(scaled) - _KNEE
    rounded = _KNEE + (CEILING - _KNEE) * np.tanh(np.maximum(over, 0) / (CEILING - _KNEE))
    limited = np.where(over > 0, np.copysign(rounded, scaled), scaled)
    return (limited - np.mean(limited, dtype=np.float64)).astype(np.float32)


def _fft_size(samples: int) -> int:
    """Give the smallest power of two that holds `samples`."""
    return 1 << max(1, samples - 1).bit_length()

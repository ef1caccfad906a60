"""A drum kit: every voice as a short sound, its tuning and damping drawn once per kit."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from pipeline.synthesize.signal import Audio, band_noise, damped_sines, fade_out, times

KitSounds = dict[str, tuple[Audio, ...]]
Metal = NDArray[np.float64]

# How loud a voice stands in the mix; every sound of a kit has a peak of 1 before it.
VOICE_LEVELS = {
    "kick": 1.0,
    "snare": 0.8,
    "rim": 0.5,
    "clap": 0.65,
    "closed_hat": 0.3,
    "open_hat": 0.3,
    "pedal_hat": 0.25,
    "shaker": 0.2,
    "ride": 0.26,
    "crash": 0.4,
    "high_tom": 0.7,
    "mid_tom": 0.75,
    "floor_tom": 0.8,
}
_TAKES = 3
_METAL_PARTIALS = 48


def build_kit(rng: np.random.Generator, voices: Collection[str]) -> KitSounds:
    """Draw a kit with some of the voices of VOICE_LEVELS: a few takes [n] of each, their peak 1.

    Several takes, because a drum never sounds twice the same.
    """
    kick_pitch, kick_decay = rng.uniform(42, 62), rng.uniform(0.09, 0.2)
    snare_pitch, snare_decay = rng.uniform(165, 230), rng.uniform(0.06, 0.13)
    tom_pitch, hat_low = rng.uniform(0.85, 1.2), rng.uniform(5200, 7200)
    hat_decay, open_decay = rng.uniform(0.018, 0.035), rng.uniform(0.12, 0.22)
    metal, clap_band = 850 * 11 ** np.sort(rng.random(_METAL_PARTIALS)), rng.uniform(900, 1300)
    kit: KitSounds = {}
    for voice in sorted(voices):
        takes = []
        for _ in range(_TAKES):
            match voice:
                case "kick":
                    sound = _kick(rng, kick_pitch, kick_decay)
                case "snare":
                    sound = _snare(rng, snare_pitch, snare_decay)
                case "rim":
                    sound = _rim(rng, 4 * snare_pitch)
                case "clap":
                    sound = _clap(rng, clap_band)
                case "closed_hat" | "pedal_hat":
                    sound = _cymbal(rng, 1.15 * metal, hat_low, hat_decay, ring=0.15)
                case "open_hat":
                    sound = _cymbal(rng, 1.15 * metal, hat_low, open_decay, ring=0.2)
                case "ride":
                    sound = _cymbal(rng, metal, 3800, 0.28, ring=0.4)
                case "crash":
                    sound = _cymbal(rng, 0.75 * metal, 2600, 0.45, ring=0.15)
                case "shaker":
                    sound = _shaker(rng)
                case _:
                    sound = _tom(rng, tom_pitch * {"high_tom": 165, "mid_tom": 125, "floor_tom": 88}[voice])
            takes.append((sound / np.max(np.abs(sound))).astype(np.float32))
        kit[voice] = tuple(takes)
    return kit


def _swept_sine(seconds: float, pitch: float, overshoot: float, sweep: float, decay: float) -> Audio:
    """Decaying sine [n] that falls to `pitch` Hz from `1 + overshoot` times it in some `sweep` seconds."""
    t = times(seconds)
    cycles = pitch * (t + overshoot * sweep * (1 - np.exp(-t / sweep)))
    attack = np.minimum(1, t / 0.0012)
    return fade_out(np.sin(2 * np.pi * cycles) * np.exp(-t / decay) * attack)


def _burst(rng: np.random.Generator, seconds: float, low: float, high: float, decay: float) -> Audio:
    """Band noise [n] that starts at once and decays with the time constant `decay` in seconds."""
    t = times(seconds)
    return fade_out(0.3 * band_noise(rng, len(t), low, high) * np.exp(-t / decay) * np.minimum(1, t / 0.0004))


def _kick(rng: np.random.Generator, pitch: float, decay: float) -> Audio:
    body: Audio = np.tanh(1.6 * _swept_sine(0.55, pitch, 3.2, 0.022, decay))
    click = _burst(rng, 0.03, 1500, 6500, 0.004)
    body[: len(click)] += 0.45 * click
    return body


def _snare(rng: np.random.Generator, pitch: float, decay: float) -> Audio:
    head = _swept_sine(0.4, pitch, 0.35, 0.012, 0.07) + 0.5 * _swept_sine(0.4, 1.72 * pitch, 0.2, 0.01, 0.04)
    wires = _burst(rng, 0.4, 1400, 9000, decay)
    stick = _burst(rng, 0.4, 2500, 10_000, 0.006)
    struck: Audio = np.tanh(0.75 * head + 1.35 * wires + 0.9 * stick)
    return struck


def _rim(rng: np.random.Generator, pitch: float) -> Audio:
    wood = _swept_sine(0.12, 2 * pitch, 0.05, 0.004, 0.012) + 0.6 * _swept_sine(0.12, pitch, 0.1, 0.006, 0.022)
    wood += 0.6 * _burst(rng, 0.12, 1500, 7000, 0.008)
    return wood


def _clap(rng: np.random.Generator, band: float) -> Audio:
    t = times(0.35)
    hands = np.exp(-t / 0.09) * (t > 0.03)
    for delay in (0.0, 0.011, 0.021):
        hands = np.maximum(hands, 0.8 * np.exp(-np.maximum(t - delay, 0) / 0.006) * (t >= delay))
    return fade_out(band_noise(rng, len(t), band, 4 * band) * hands * np.minimum(1, t / 0.0005))


def _cymbal(rng: np.random.Generator, metal: Metal, low: float, decay: float, ring: float) -> Audio:
    """Struck metal [n]: noise above `low` Hz with a slower tail, and `ring` times the metal's own partials."""
    t, phases = times(6 * decay + 0.05), rng.random(len(metal))
    wash = band_noise(rng, len(t), low, 11_000) * (np.exp(-t / decay) + 0.5 * np.exp(-t / (0.25 * decay)))
    # The upper partials of a plate die first; without that a cymbal whines like an organ.
    decays = (0.8 + 1.6 * (metal / 9000) ** 1.5 * rng.uniform(0.6, 1.4, len(metal))) / decay
    amplitudes = np.sqrt(metal / 4000) * rng.uniform(0.2, 1, len(metal)) * np.exp(2j * np.pi * phases)
    partials = damped_sines(metal, decays, amplitudes / np.sqrt(len(metal)), len(t))
    return fade_out((0.35 * wash + ring * partials) * np.minimum(1, t / 0.0006), 0.3)


def _shaker(rng: np.random.Generator) -> Audio:
    t = times(0.11)
    swell = np.minimum(1, t / 0.022) * np.exp(-np.maximum(t - 0.022, 0) / 0.02)
    return fade_out(band_noise(rng, len(t), 4800, 10_000) * swell)


def _tom(rng: np.random.Generator, pitch: float) -> Audio:
    skin = _swept_sine(0.6, pitch, 0.5, 0.045, 0.16) + 0.35 * _swept_sine(0.6, 1.59 * pitch, 0.3, 0.03, 0.07)
    slap = _burst(rng, 0.05, 700, 5000, 0.007)
    skin[: len(slap)] += 0.4 * slap
    return skin

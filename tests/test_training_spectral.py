"""Losses on spectra: values against a second computation in numpy, and gradients that stay finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sounds import audio
from torch import Tensor

from training.losses import mel_distance, spectral_outlier, stft_distance

RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512))
Doubles = NDArray[np.float64]


def spectrum(samples: Tensor, size: int, hop: int) -> Doubles:
    """Magnitudes [B, F, T] by numpy's FFT: periodic Hann windows, centred, the ends reflected."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    padded = np.pad(samples[:, 0].double().numpy(), ((0, 0), (size // 2, size // 2)), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, size, axis=1)[:, ::hop]
    return np.abs(np.fft.rfft(frames * window, axis=2)).transpose(0, 2, 1)


def triangles(bins: int, bands: int, highest: float) -> Doubles:
    """Triangular filters [bins, bands] between points that are equally far apart on HTK's mel scale."""
    points = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + highest / 700), bands + 2) / 2595) - 1)
    frequencies = np.linspace(0, 12_000, bins)[:, None]
    low, middle, high = points[:-2], points[1:-1], points[2:]
    return np.maximum(0, np.minimum((frequencies - low) / (middle - low), (high - frequencies) / (high - middle)))


def logarithmic(made: Doubles, wanted: Doubles) -> float:
    return float(np.abs(np.log(made + 1e-5) - np.log(wanted + 1e-5)).mean())


def test_stft_distance_is_convergence_plus_log_magnitudes_over_three_resolutions() -> None:
    output, source = audio(1), audio(2)
    expected = []
    for size, hop in RESOLUTIONS:
        made, wanted = spectrum(output, size, hop), spectrum(source, size, hop)
        convergence = [np.linalg.norm(m - w) / np.linalg.norm(w) for m, w in zip(made, wanted, strict=True)]
        expected.append(np.mean(convergence) + logarithmic(made, wanted))
    assert float(stft_distance(output, source)) == pytest.approx(np.mean(expected), rel=1e-4)


def test_a_loud_pair_does_not_decide_for_a_quiet_one() -> None:
    output, source = audio(1), audio(2)
    level = torch.tensor([1.0, 1e-2])[:, None, None]
    alone = [float(stft_distance(output[i : i + 1], source[i : i + 1])) for i in range(2)]
    assert float(stft_distance(output, source)) == pytest.approx(np.mean(alone), rel=1e-5)
    # Of a batch as one recording, the seeds' way, the quiet pair's convergence counts for nothing.
    wrong = torch.stack([source[0], 3 * source[1]])
    ours, theirs = (
        float(stft_distance(level * wrong, level * source, compat)) - float(stft_distance(wrong, source, compat))
        for compat in ("none", "seeds")
    )
    assert abs(ours) < 0.1
    assert theirs < -0.5


def test_mel_distance_is_that_of_eighty_bands_up_to_eight_kilohertz() -> None:
    output, source = audio(1), audio(2)
    filters = triangles(513, 80, 8000.0)
    made, wanted = (filters.T @ np.square(spectrum(x, 1024, 256)) for x in (output, source))
    assert float(mel_distance(output, source)) == pytest.approx(logarithmic(made, wanted), rel=1e-4)


def test_spectral_outlier_is_the_energy_of_frames_that_stick_out() -> None:
    samples = audio(1)
    levels = spectrum(samples, 2048, 512)
    expected = []
    for low, high in ((1800, 2200), (3800, 4200), (5800, 6200)):
        band = levels[:, low * 2048 // 24_000 : high * 2048 // 24_000].mean(1)
        outliers = band[band > np.quantile(band, 0.9)]
        expected.append(np.square(outliers - band.mean()).mean())
    assert float(spectral_outlier(samples)) == pytest.approx(np.mean(expected), rel=1e-3)


@pytest.mark.parametrize("frequency", [2000, 4000, 6000, 3000])
def test_a_burst_in_a_ringing_band_costs_and_one_beside_it_does_not(frequency: int) -> None:
    time = torch.arange(48_000) / 24_000
    tone = 0.2 * torch.sin(2 * torch.pi * frequency * time) * ((time > 0.9) & (time < 1.0))
    noise = 0.01 * audio(1)
    ratio = float(spectral_outlier(noise + tone)) / float(spectral_outlier(noise))
    assert (ratio > 100) == (frequency != 3000)


@pytest.mark.parametrize("output", ["music", "copy", "silence", "next to silence"])
@pytest.mark.parametrize("source", ["music", "silence", "next to silence"])
def test_gradients_are_finite_whatever_is_heard(output: str, source: str) -> None:
    sounds = {"music": audio(2), "silence": torch.zeros(2, 1, 48_000), "next to silence": 1e-6 * audio(2)}
    wanted = sounds[source]
    leaf = (wanted if output == "copy" else sounds[output] * -1).clone().requires_grad_()
    for distance in (stft_distance, mel_distance):
        value = distance(leaf, wanted)
        (gradient,) = torch.autograd.grad(value, leaf)
        assert torch.isfinite(gradient).all()
        assert float(value.detach()) < 1000, "no pair outweighs a training"
    (gradient,) = torch.autograd.grad(spectral_outlier(leaf), leaf)
    assert torch.isfinite(gradient).all()


def test_a_copy_is_at_no_distance() -> None:
    assert float(stft_distance(audio(1), audio(1))) == 0
    assert float(mel_distance(audio(1), audio(1))) == 0


def test_a_silent_source_is_measured_as_a_quiet_one() -> None:
    """The seeds divided by the energy of the source: a drum's rest gave 10^8, and its gradient was all of a step's."""
    output, silence = audio(1), torch.zeros(2, 1, 48_000)
    assert float(stft_distance(output, silence, "seeds")) > 1e8
    assert float(stft_distance(output, silence)) < 1000
    quiet = 1e-2 * audio(2)
    ours, theirs = float(stft_distance(output, quiet)), float(stft_distance(output, quiet, "seeds"))
    assert ours == pytest.approx(theirs, rel=0.2), "music at -60 dB still is what it was"

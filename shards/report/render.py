"""The page of a dataset: what its report holds, put into words, charts and a template."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from shards.dataset import describe_codec
from shards.page.charts import number
from shards.page.document import set_page
from shards.report import charts
from shards.report.collect import EXACT_SNR_DB, Measured, Report

PROBLEMS = 100
"""Problems that are listed on the page at most; `verify` lists all."""

SIDE_NAMES = {"input": "Input", "target": "Target"}


def render(report: Report) -> str:
    """Set the page. The same report always gives the same text."""
    return set_page(
        "shards.report",
        report=report,
        manifest=report.manifest,
        audit=report.audit,
        problems=report.audit.problems[:PROBLEMS],
        summary=_summary(report),
        roles={field.name: field.role for field in report.manifest.fields},
        side_names=SIDE_NAMES,
        histograms=[chart for make in HISTOGRAMS if (chart := make(report.measured))],
        channel_charts=_channel_charts(report),
        envelope=charts.envelope,
        decibels=decibels,
        config=json.dumps(report.manifest.build.config, indent=2, sort_keys=True, ensure_ascii=False),
        pairing=json.dumps(report.manifest.pairing, indent=2, sort_keys=True, ensure_ascii=False),
    )


def _summary(report: Report) -> dict[str, Any]:
    manifest = report.manifest
    seconds = manifest.window_samples / manifest.codec.sample_rate
    return {
        "seconds": seconds,
        "hours": report.total * seconds / 3600,
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "shards": len(manifest.shards),
        "tracks": sum(entry.groups for entry in manifest.splits.values()),
        "rejected": sum(manifest.rejected.values()),
        "codec": describe_codec(manifest.codec),
        "shape": manifest.fields[0].shape,
        "dtype": manifest.fields[0].dtype,
    }


# What a chart shows, its unit and a sentence under it, each from the measured samples; None without values.

Figure = dict[str, Any]


def _by_side(
    title: str, unit: str, value: Callable[[Measured], dict[str, float]], measured: Iterable[Measured]
) -> Figure | None:
    samples = [value(sample) for sample in measured]
    series = {side: [s[side] for s in samples if math.isfinite(s[side])] for side in SIDE_NAMES}
    if not all(series.values()):
        return None
    notes = [(side, f"{SIDE_NAMES[side]}: {_range(values, 1)} {unit}") for side, values in series.items()]
    label = f"{title}. " + "; ".join(text for _, text in notes)
    return {"title": title, "notes": notes, "svg": charts.histogram(series, unit, label), "label": label}


def _snr(measured: Iterable[Measured]) -> Figure | None:
    lossy = [m for m in measured if max(m.snr.values()) < EXACT_SNR_DB]
    if not lossy:
        notes = [("both", "Every cast is exact: the stored type lost nothing.")] if measured else []
        return {"title": "Cast SNR", "notes": notes, "svg": None, "label": ""} if notes else None
    return _by_side("Cast SNR", "dB", lambda m: m.snr, lossy)


def _correlation(measured: Iterable[Measured]) -> Figure | None:
    values = [m.correlation for m in measured if m.correlation is not None]
    if not values:
        return None
    note = f"Both sides: {_range(values, 2)}"
    title = "Correlation of the envelopes"
    label = f"{title}. {note}"
    return {"title": title, "notes": [("both", note)], "svg": charts.histogram({"both": values}, "r", label)}


HISTOGRAMS: tuple[Callable[[tuple[Measured, ...]], Figure | None], ...] = (
    partial(_by_side, "RMS", "dBFS", lambda m: {side: _level(value) for side, value in m.rms.items()}),
    partial(_by_side, "Peak", "dBFS", lambda m: {side: _level(value) for side, value in m.peak.items()}),
    _snr,
    _correlation,
)


def _range(values: list[float], digits: int) -> str:
    middle, low, high = (
        f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
        for value in (sorted(values)[len(values) // 2], min(values), max(values))
    )
    return f"median {middle}, {low} to {high}"


def _channel_charts(report: Report) -> list[Figure]:
    statistics = report.statistics
    if statistics is None:
        return []
    figures = []
    for side, name in SIDE_NAMES.items():
        lowest, highest = min(statistics[side]["min"]), max(statistics[side]["max"])
        note = f"Values from {number(lowest, 4)} to {number(highest, 4)}"
        label = f"Mean and standard deviation of each channel, {name.lower()}. {note}"
        svg = charts.channels(statistics[side], side, label)
        figures.append({"title": f"{name}: mean and spread", "notes": [(side, note)], "svg": svg})
    label = "RMS of each channel, both sides, in dB"
    svg = charts.channel_levels(statistics, label)
    notes = list(SIDE_NAMES.items())
    return [*figures, {"title": "RMS, dB", "notes": notes, "svg": svg}]


def _level(amplitude: float) -> float:
    return 20 * math.log10(amplitude) if math.isfinite(amplitude) and amplitude > 0 else -math.inf


def decibels(amplitude: float) -> str:
    """Write an amplitude as a level."""
    level = _level(amplitude)
    return f"{level:.1f} dBFS".replace("-", "\N{MINUS SIGN}") if math.isfinite(level) else "silent"

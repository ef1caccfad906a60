"""The page: one HTML file with everything in it, safe against whatever a dataset's names hold. The door to Jinja2."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Iterable
from functools import partial
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from shards.dataset import describe_codec
from shards.report import charts
from shards.report.collect import EXACT_SNR_DB, Measured, Report

PROBLEMS = 100
"""Problems that are listed on the page at most; `verify` lists all."""

SIDE_NAMES = {"input": "Input", "target": "Target"}


def render(report: Report) -> str:
    """Set the page. The same report always gives the same text."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters.update(count=count, decibels=decibels, uri=data_uri, megabytes=megabytes)
    style, script = _resource("page.css"), _resource("page.js")
    template = environment.from_string(_resource("template.html.jinja"))
    return template.render(
        style=Markup(style),  # noqa: S704 - the project's own file
        script=Markup(script),  # noqa: S704 - the project's own file
        policy=_policy(style, script),
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
        config=json.dumps(report.manifest.build.config, indent=2, sort_keys=True, ensure_ascii=False),
        pairing=json.dumps(report.manifest.pairing, indent=2, sort_keys=True, ensure_ascii=False),
    )


def _resource(name: str) -> str:
    return files("shards.report").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Allow exactly this style sheet, this script and data inside the page: a browser fetches nothing else."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'sha256-{hashes[0]}'; "
        f"script-src 'sha256-{hashes[1]}'; base-uri 'none'; form-action 'none'"
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
        note = f"Values from {charts.number(lowest, 4)} to {charts.number(highest, 4)}"
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


def count(value: int) -> str:
    """Write a whole number, in groups of three digits."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def megabytes(value: int) -> str:
    """Write a size."""
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"


def data_uri(content: bytes, kind: str) -> str:
    """Put a file into an address of its own."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

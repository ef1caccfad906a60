"""Whether a training is well: rules over what it logs, each with the mend that its users found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from shards.files import write_json
from training.events import Event

if TYPE_CHECKING:
    from training.step import Step

HEALTH = "health.json"
DEAD = 1e-8
"""Gradient norm under which a weight learns nothing."""
FALL = 1e-3
"""Of the complementarity in an epoch: less is noise."""
Verdict = Literal["green", "red", "unknown"]


@dataclass(frozen=True)
class Finding:
    """What a rule says: `value` is what it looked at, in words; `severe` ones end a run with a failure."""

    rule: str
    verdict: Verdict
    value: str
    red_when: str
    mend: str
    severe: bool = False


@dataclass(frozen=True)
class History:
    """What a run has logged: its epochs, each with means of training and validation, its steps, and its roll-backs."""

    epochs: Sequence[Event]
    steps: Sequence[Event]
    rollbacks: int = 0
    failed: str | None = None

    @classmethod
    def of(cls, events: Sequence[Event]) -> History:
        """Sort a run's events."""
        kinds: dict[str, list[Event]] = {}
        for event in events:
            kinds.setdefault(event["event"], []).append(event)
        failed = kinds.get("failed")
        rollbacks = len(kinds.get("rollback", ()))
        return cls(kinds.get("epoch", []), kinds.get("train", []), rollbacks, failed[-1]["where"] if failed else None)

    def validated(self, name: str) -> list[float]:
        """A validation metric over the epochs that have it."""
        return [event[f"val/{name}"] for event in self.epochs if f"val/{name}" in event]

    def trained(self, name: str) -> list[float]:
        """A training metric's means over the epochs that have it."""
        return [event["train"][name] for event in self.epochs if name in event["train"]]


Judge = Callable[[History], tuple[bool, str] | None]
"""Whether a rule is broken, and what it looked at; None where there is nothing to look at yet."""


@dataclass(frozen=True)
class Rule:
    """One rule."""

    name: str
    red_when: str
    mend: str
    judge: Judge
    severe: bool = False

    def examine(self, history: History) -> Finding:
        """Apply the rule."""
        judged = self.judge(history)
        verdict: Verdict = "unknown" if judged is None else "red" if judged[0] else "green"
        value = "nothing to judge yet" if judged is None else judged[1]
        return Finding(self.name, verdict, value, self.red_when, self.mend, self.severe)


def _finite(history: History) -> tuple[bool, str] | None:
    if history.failed is not None:
        return True, f"gave up; first in {history.failed}"
    if not history.steps:
        return None
    skipped = max(event.get("health/skipped", 0.0) for event in history.steps)
    told = f"at most {skipped:.0%} of the steps between two lines skipped, {history.rollbacks} returns"
    return skipped > 0 or history.rollbacks > 0, told


def _gradients(history: History) -> tuple[bool, str] | None:
    peaks = [event["gradient/norm_max"] for event in history.steps if "gradient/norm_max" in event]
    if not peaks:
        return None
    usual = median(event["gradient/norm"] for event in history.steps if "gradient/norm" in event)
    worst = max(peaks)
    return worst > 100 or (len(peaks) >= 10 and worst > 10 * usual), f"peak {worst:.3g}, usually {usual:.3g}"


def _scale(history: History) -> tuple[bool, str] | None:
    clamped = history.trained("level/clamped")
    return (clamped[-1] > 0.1, f"{clamped[-1]:.0%} of the samples") if clamped else None


def _complementarity(history: History) -> tuple[bool, str] | None:
    values = history.validated("agent/complementarity")
    if not values:
        return None
    late = len(values) >= 20 and values[-1] < 0.8
    falling = len(values) >= 4 and values[-4] > values[-3] > values[-2] > values[-1] + FALL
    return late or falling, f"{values[-1]:.3f}" + (", falling" if falling else "")


def _mask_balance(history: History) -> tuple[bool, str] | None:
    means = [history.validated(f"agent/{side}_mask_mean") for side in ("input", "target")]
    if not all(means):
        return None
    worst = max(abs(values[-1] - 0.5) for values in means)
    return worst > 0.05, " and ".join(f"{values[-1]:.3f}" for values in means)


def _novelty(history: History) -> tuple[bool, str] | None:
    values = history.validated("agent/novelty")
    return (values[-1] == 0 or values[-1] > 0.2, f"{values[-1]:.3f}") if values else None


def _weights(history: History) -> tuple[bool, str] | None:
    if len(history.epochs) < 15:
        return None
    last = {n.split("/")[-1]: v for n, v in history.epochs[-1].items() if n.startswith("val/agent/") and "_weight" in n}
    if not last:
        return None
    spread = max(abs(value - 1 / 6) for value in last.values())
    return spread <= 0.01, ", ".join(f"{name.removesuffix('_weight')} {value:.2f}" for name, value in last.items())


def _agent(history: History) -> tuple[bool, str] | None:
    norms = history.trained("gradient/agent")
    return (norms[-1] < 1e-4, f"{norms[-1]:.2g}") if norms else None


def _copying(history: History) -> tuple[bool, str] | None:
    likeness = [history.validated(f"likeness/{side}") for side in ("input", "target")]
    if not all(likeness):
        return None
    low, high = sorted(abs(values[-1]) for values in likeness)
    told = f"like the input {likeness[0][-1]:.2f}, like the target {likeness[1][-1]:.2f}"
    return high > 0.7 and high > 2 * low, told


def _gan(history: History) -> tuple[bool, str] | None:
    accuracy = history.trained("gan/real_accuracy")
    return (not 0.55 <= accuracy[-1] <= 0.95, f"{accuracy[-1]:.0%} of real latents known") if accuracy else None


def _level(history: History) -> tuple[bool, str] | None:
    ratios = history.validated("level/rms_ratio")
    return (not 0.8 <= ratios[-1] <= 1.25, f"{ratios[-1]:.2f} of the sources' level") if ratios else None


def _dead(history: History) -> tuple[bool, str] | None:
    if not history.epochs or "dead" not in history.epochs[-1]:
        return None
    dead = history.epochs[-1]["dead"]
    named = ", ".join(dead[:5]) + (f" and {len(dead) - 5} more" if len(dead) > 5 else "")
    return bool(dead), named or "none"


RULES = (
    Rule(
        "non-finite",
        "a loss or gradient is not finite",
        "the steps are skipped; after 3 in a row the training goes back to its last good checkpoint at half the rate",
        _finite,
        severe=True,
    ),
    Rule(
        "gradient norm",
        "over 100, or 10 times the running median",
        "lower optimizer.learning_rate to 5e-5, and clip the agent apart with optimizer.agent_clip_norm 0.5",
        _gradients,
        severe=True,
    ),
    Rule(
        "RMS scale",
        "at a clamp for over 10 % of the samples",
        "fewer model.cascade.stages, and residual_weights of 1",
        _scale,
    ),
    Rule(
        "complementarity",
        "under 0.80 after 20 epochs, or falling 3 epochs in a row",
        "raise losses.mask_regularisation to 0.5",
        _complementarity,
    ),
    Rule("mask balance", "a mask's mean outside 0.45 to 0.55", "set losses.balance to 10 or 15", _mask_balance),
    Rule("novelty", "exactly 0, or over 0.2", "raise losses.novelty; where it is 0, raise losses.spectral", _novelty),
    Rule(
        "component weights",
        "all within 0.01 of 1/6 after 15 epochs",
        "train longer, with more losses.spectral",
        _weights,
    ),
    Rule(
        "agent gradients",
        "norm under 1e-4",
        "the agent is cut off from the loss: give mask_regularisation, balance or novelty a weight",
        _agent,
    ),
    Rule(
        "copying",
        "the envelope is like one source's over 0.7 and twice as much as the other's",
        "raise losses.modulation_correlation",
        _copying,
    ),
    Rule(
        "GAN",
        "the discriminator knows over 95 % or under 55 % of real latents",
        "change discriminator.learning_rate, discriminator.every, or losses.gan",
        _gan,
    ),
    Rule(
        "output level",
        "RMS outside 0.8 to 1.25 of the sources'",
        "raise losses.rms_input and losses.rms_target, and keep model.cascade.scale_clamp",
        _level,
    ),
    Rule(
        "dead parameters",
        f"a weight's gradient stays under {DEAD:g} for an epoch",
        "the named weights learn nothing: see which loss should reach them",
        _dead,
    ),
)


def examine(history: History) -> list[Finding]:
    """Apply every rule to what a run has logged."""
    return [rule.examine(history) for rule in RULES]


class HealthMonitor:
    """Hears a run's events, judges after each epoch, keeps `health.json` up to date, and tells what has turned red."""

    def __init__(self, run_dir: Path, past: Sequence[Event] = ()) -> None:
        self._path = run_dir / HEALTH
        self._events = list(past)
        self._red: set[str] = {
            finding.rule for finding in examine(History.of(self._events)) if finding.verdict == "red"
        }
        self._peaks: dict[str, float] = {}
        self._dead: list[str] = []

    def hear(self, event: Event) -> list[Event]:
        """Take an event; gives it back, followed by an `alert` for each rule that has turned red.

        Where the rules were applied, the event names the red ones, under `red`.
        """
        self._events.append(event)
        if event["event"] not in {"epoch", "rollback", "failed"}:
            return [event]
        findings = examine(History.of(self._events))
        write_json(self._path, report(findings, event))
        red = {finding.rule for finding in findings if finding.verdict == "red"}
        new, self._red = red - self._red, red
        place = {name: event[name] for name in ("step", "epoch", "time")}
        alerts = [{"event": "alert", **place, **asdict(f)} for f in findings if f.rule in new]
        return [event | {"red": red_rules(findings)}, *alerts]

    def see_gradients(self, step: Step, *, last: bool) -> None:
        """Look at each weight's gradient, now and then in an epoch; the last look of an epoch tells what is dead."""
        for name, norm in step.gradient_peaks().items():
            self._peaks[name] = max(norm, self._peaks.get(name, 0.0))
        if last:
            self._dead = [name for name, norm in self._peaks.items() if norm < DEAD]
            self._peaks = {}

    def dead_parameters(self) -> list[str]:
        """Name the weights whose gradient was as good as nothing in the last epoch."""
        return self._dead


def report(findings: Sequence[Finding], at: Mapping[str, Any]) -> dict[str, Any]:
    """Put findings into the form of `health.json`."""
    red = list(red_rules(findings))
    return {"step": at["step"], "epoch": at["epoch"], "red": red, "rules": [asdict(finding) for finding in findings]}


def red_rules(findings: Sequence[Finding]) -> dict[str, str]:
    """Name the red rules, each with what it looked at and its mend."""
    return {f.rule: f"{f.value}; {f.mend}" for f in findings if f.verdict == "red"}


def examine_run(events: Sequence[Event]) -> list[Finding]:
    """Judge a run by its events, anew."""
    return examine(History.of(events))

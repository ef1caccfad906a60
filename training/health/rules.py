"""The rules, each a pure function of a run's history: what is red, what was looked at, and what helps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

from training.health.history import History

DEAD = 1e-8
"""Gradient norm under which a weight learns nothing."""
FALL = 1e-3
"""Of the complementarity from one epoch to the next: less is noise."""
MEDIAN_OF, MEDIAN_FROM = 100, 10
"""Lines that the running median of the gradient's norm looks back on, and how many it needs."""
CLIPPED = 10.0
"""Gradient norm up to which no preset clips: as large an update is a usual one, however small those before it were."""
EVEN = 1 / 6
"""Weight of each of six components that are all alike."""

Verdict = Literal["green", "red", "unknown"]
Judgement = tuple[bool | None, str]
"""Whether a rule is broken, None where there is nothing to judge yet, and what it looked at."""
NOTHING: Judgement = (None, "nothing to judge yet")


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
class Rule:
    """One rule. The severe ones look at the newest epoch and what follows it, the others at the newest epoch."""

    name: str
    red_when: str
    mend: str
    judge: Callable[[History], Judgement]
    severe: bool = False

    def examine(self, history: History) -> Finding:
        """Apply the rule."""
        broken, value = self.judge(history)
        verdict: Verdict = "unknown" if broken is None else "red" if broken else "green"
        return Finding(self.name, verdict, value, self.red_when, self.mend, self.severe)


def examine(history: History) -> list[Finding]:
    """Apply every rule to what a run has logged."""
    return [rule.examine(history) for rule in RULES]


def _finite(history: History) -> Judgement:
    if history.failed is not None:
        return True, f"gave up; first in {history.failed}"
    if not history.lines and not history.returns:
        return NOTHING
    recent = history.recent
    skipping = sum(history.lines[place].skipped > 0 for place in recent)
    returns = sum(behind >= recent.start for behind in history.returns)
    told = f"steps skipped in {skipping} of {len(recent)} lines, {_count(returns, 'return')}"
    if earlier := len(history.returns) - returns:
        told += f"; {_count(earlier, 'return')} before"
    if history.epochs and not history.epochs[-1].loss_is_finite:
        return True, f"{told}; the held-out loss is not finite"
    return skipping > 0 or returns > 0, told


def _gradient_norm(history: History) -> Judgement:
    peaks = [peak for place in history.recent if (peak := history.lines[place].peak) is not None]
    if not peaks:
        return NOTHING
    told = f"at most {max(peaks):.3g}"
    # Means against means: the largest of many steps is far from the usual one in any training.
    known = [(history.lines[place].norm, _usual_norm(history, place)) for place in history.recent]
    rises = [(norm / usual, norm, usual) for norm, usual in known if norm is not None and usual]
    if not rises:
        return max(peaks) > 100, told
    rise, norm, usual = max(rises)
    broken = max(peaks) > 100 or (rise > 10 and norm > CLIPPED)
    return broken, f"{told}; a mean of {norm:.3g} where {usual:.3g} was usual"


def _usual_norm(history: History, place: int) -> float | None:
    """The running median in front of a line; None where it would be one of too few."""
    norms = [line.norm for line in history.lines[max(0, place - MEDIAN_OF) : place] if line.norm is not None]
    return median(norms) if len(norms) >= MEDIAN_FROM else None


def _rms_scale(history: History) -> Judgement:
    clamped = history.trained("level/clamped")
    if clamped is None:
        return NOTHING
    scale = history.trained("level/scale")
    return clamped > 0.1, f"{clamped:.1%} of the samples" + (f", factor {scale:.2f}" if scale is not None else "")


def _complementarity(history: History) -> Judgement:
    value = history.validated("agent/complementarity")
    if value is None:
        return NOTHING
    last = [epoch.validated.get("agent/complementarity") for epoch in history.epochs[-4:]]
    known = [one for one in last if one is not None]
    falls = [before - after for before, after in pairwise(known)]
    falling = len(falls) == 3 and all(fall > FALL for fall in falls)
    late = history.epochs[-1].number >= 20 and value < 0.8
    return late or falling, f"{value:.3f}" + (", falling" if falling else "")


def _mask_balance(history: History) -> Judgement:
    means = [history.validated(f"agent/{side}_mask_mean") for side in ("input", "target")]
    known = [mean for mean in means if mean is not None]
    if not known:
        return NOTHING
    return any(not 0.45 <= mean <= 0.55 for mean in known), " and ".join(f"{mean:.3f}" for mean in known)


def _novelty(history: History) -> Judgement:
    value = history.validated("agent/novelty")
    return NOTHING if value is None else (value == 0 or value > 0.2, f"{value:.3f}")


def _component_weights(history: History) -> Judgement:
    if not history.epochs:
        return NOTHING
    newest = history.epochs[-1]
    weights = {
        name.removeprefix("agent/").removesuffix("_weight").replace("_", " "): value
        for name, value in newest.validated.items()
        if name.startswith("agent/") and name.endswith("_weight")
    }
    if not weights:
        return NOTHING
    told = ", ".join(f"{name} {value:.2f}" for name, value in weights.items())
    if newest.number < 15:
        return None, f"{told}; judged from epoch 15 on"
    return all(EVEN - 0.01 <= value <= EVEN + 0.01 for value in weights.values()), told


def _agent_gradients(history: History) -> Judgement:
    norm = history.trained("gradient/agent")
    return NOTHING if norm is None else (norm < 1e-4, f"{norm:.2g}")


def _copying(history: History) -> Judgement:
    like_input, like_target = (history.validated(f"likeness/{side}") for side in ("input", "target"))
    if like_input is None or like_target is None:
        return NOTHING
    low, high = sorted((abs(like_input), abs(like_target)))
    return high > 0.7 and high > 2 * low, f"like the input {like_input:.2f}, like the target {like_target:.2f}"


def _gan(history: History) -> Judgement:
    accuracy = history.trained("gan/real_accuracy")
    if accuracy is None:
        return NOTHING
    return not 0.55 <= accuracy <= 0.95, f"{accuracy:.1%} of real latents known"


def _output_level(history: History) -> Judgement:
    ratio = history.validated("level/rms_ratio")
    return NOTHING if ratio is None else (not 0.8 <= ratio <= 1.25, f"{ratio:.2f} of the sources'")


def _dead_parameters(history: History) -> Judgement:
    dead = history.epochs[-1].dead if history.epochs else None
    if dead is None:
        return NOTHING
    more = f" and {len(dead) - 5} more" if len(dead) > 5 else ""
    return bool(dead), ", ".join(dead[:5]) + more if dead else "none"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


RULES = (
    Rule(
        "non-finite",
        "a loss or gradient is not finite",
        "the steps are skipped; after 3 in a row the training goes back to its last good checkpoint at half the rate; "
        "where it returns again and again, lower optimizer.learning_rate",
        _finite,
        severe=True,
    ),
    Rule(
        "gradient norm",
        "over 100, or over 10 and 10 times the running median",
        "lower optimizer.learning_rate to 5e-5, and clip the agent apart with optimizer.agent_clip_norm 0.5",
        _gradient_norm,
        severe=True,
    ),
    Rule(
        "RMS scale",
        "at a clamp, or without one outside 0.7 to 1.5, for over 10 % of the samples",
        "fewer model.cascade.stages, and model.cascade.residual_weights of 1",
        _rms_scale,
    ),
    Rule(
        "complementarity",
        "under 0.80 after 20 epochs, or falling 3 epochs in a row, by over 0.001 each",
        "raise losses.mask_regularisation to 0.5",
        _complementarity,
    ),
    Rule("mask balance", "a mask's mean outside 0.45 to 0.55", "set losses.balance to 10 or 15", _mask_balance),
    Rule("novelty", "exactly 0, or over 0.2", "raise losses.novelty; where it is 0, raise losses.spectral", _novelty),
    Rule(
        "component weights",
        "all within 0.01 of 1/6 after 15 epochs",
        "train longer, with more losses.spectral",
        _component_weights,
    ),
    Rule(
        "agent gradients",
        "norm under 1e-4",
        "the agent is cut off from the loss: give mask_regularisation, balance or novelty a weight",
        _agent_gradients,
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
        _output_level,
    ),
    Rule(
        "dead parameters",
        f"a weight's gradient stays under {DEAD:g} for an epoch",
        "the named weights learn nothing: see which loss should reach them",
        _dead_parameters,
    ),
)

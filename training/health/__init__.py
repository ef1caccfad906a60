"""Whether a training is well: rules over what it logs, each with the mend that its users found."""

from training.health.history import History, read_run
from training.health.monitor import HealthMonitor
from training.health.report import HEALTH, GaveUp, red_rules, report, require_going, require_well
from training.health.rules import RULES, Finding, examine

__all__ = [
    "HEALTH",
    "RULES",
    "Finding",
    "GaveUp",
    "HealthMonitor",
    "History",
    "examine",
    "read_run",
    "red_rules",
    "report",
    "require_going",
    "require_well",
]

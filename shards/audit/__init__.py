"""Verification: every problem of a dataset, or of a single shard, each with its place and its mend."""

from shards.audit.dataset import Audit, verify
from shards.audit.findings import LEVELS, Level, Problem

__all__ = ["LEVELS", "Audit", "Level", "Problem", "verify"]

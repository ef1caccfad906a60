"""What is measured, each against its baseline in the same run: `python -m benchmarks.NAME [--json]`."""

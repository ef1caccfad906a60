"""`python -m pipeline COMMAND`."""

from pipeline.cli.app import app
from shards.console import run

if __name__ == "__main__":
    run(app, "python -m pipeline")

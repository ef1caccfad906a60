"""`python -m training COMMAND`."""

from shards.console import run
from training.cli.app import app

if __name__ == "__main__":
    run(app, "python -m training")

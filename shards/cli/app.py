"""All verbs of `python -m shards`, gathered under the headings of `--help`."""

from shards.cli import compare, index, inspect, order, survey, verify
from shards.console import make_app

LOOK, CHECK = "Look", "Check"

app = make_app("Look at datasets of latents, offline.")
app.command("info", rich_help_panel=LOOK)(inspect.info)
app.command("list", rich_help_panel=LOOK)(inspect.list_samples)
app.command("show", rich_help_panel=LOOK)(inspect.show)
app.command("stats", rich_help_panel=LOOK)(survey.stats)
app.command("order", rich_help_panel=LOOK)(order.order)
app.command("verify", rich_help_panel=CHECK)(verify.verify_dataset)
app.command("index", rich_help_panel=CHECK)(index.index)
app.command("diff", rich_help_panel=CHECK)(compare.diff)

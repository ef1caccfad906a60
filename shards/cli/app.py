"""All verbs of `python -m shards`, gathered under the headings of `--help`."""

from shards.cli import bench, compare, index, inspect, listen, make, order, report, survey, verify
from shards.console import make_app

LOOK, CHECK, MAKE, LISTEN = "Look", "Check", "Make new datasets", "Listen and take out"

app = make_app("Look at datasets of latents, offline.")
app.command("info", rich_help_panel=LOOK)(inspect.info)
app.command("list", rich_help_panel=LOOK)(inspect.list_samples)
app.command("show", rich_help_panel=LOOK)(inspect.show)
app.command("stats", rich_help_panel=LOOK)(survey.stats)
app.command("order", rich_help_panel=LOOK)(order.order)
app.command("verify", rich_help_panel=CHECK)(verify.verify_dataset)
app.command("index", rich_help_panel=CHECK)(index.index)
app.command("diff", rich_help_panel=CHECK)(compare.diff)
app.command("bench", rich_help_panel=CHECK)(bench.bench_dataset)
app.command("report", rich_help_panel=LOOK)(report.report)
app.command("repack", rich_help_panel=MAKE)(make.repack)
app.command("merge", rich_help_panel=MAKE)(make.merge)
app.command("split", rich_help_panel=MAKE)(make.split_dataset)
app.command("subset", rich_help_panel=MAKE)(make.subset)
app.command("listen", rich_help_panel=LISTEN)(listen.listen)
app.command("plot", rich_help_panel=LISTEN)(listen.plot)
app.command("export", rich_help_panel=LISTEN)(listen.export_samples)

"""All verbs of `python -m shards`, gathered."""

from shards.cli import bench, inspect, listen, make, report, verify
from shards.console import make_app

app = make_app("Look at datasets of latents, offline.")
app.command("info")(inspect.info)
app.command("list")(inspect.list_samples)
app.command("show")(inspect.show)
app.command("verify")(verify.verify_dataset)
app.command("report")(report.report)

app.command("repack")(make.repack)
app.command("merge")(make.merge)
app.command("split")(make.split_dataset)
app.command("subset")(make.subset)
app.command("export")(listen.export_samples)
app.command("listen")(listen.listen)
app.command("plot")(listen.plot)
app.command("bench")(bench.bench_dataset)

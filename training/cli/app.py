"""All commands of `python -m training`."""

from shards.console import make_app
from training.cli import evaluate, generate, health, import_checkpoint, launch, report

app = make_app("From shards to a model to new audio.")
app.command("launch")(launch.launch)
app.command("health")(health.health)
app.command("evaluate")(evaluate.evaluate)
app.command("generate")(generate.generate)
app.command("report")(report.report)
app.command("import-checkpoint")(import_checkpoint.import_checkpoint)

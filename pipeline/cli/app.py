"""All commands of `python -m pipeline`."""

from pipeline.cli import doctor, encode, pair, synthesize
from shards.console import make_app

app = make_app("From recordings to shards of latents.")
app.command("synthesize")(synthesize.synthesize)
app.command("pair")(pair.pair)
app.command("encode")(encode.encode)
app.command("doctor")(doctor.doctor)

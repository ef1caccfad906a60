#!/usr/bin/env bash
# The whole line on music that the machine composes itself: recordings -> shards -> model -> new audio.
# Run it again and it goes on where it was; another folder starts anew: make demo DEMO=other
set -euo pipefail
demo=${1:-demo}
python=${PYTHON:-.venv/bin/python}
began=$SECONDS

step() {
  printf '\n== %s\n' "$1"
  shift
  "$@"
}

step "composing 24 pairs of drums and piano" \
  "$python" -m pipeline synthesize "$demo/recordings" --pairs 24 --seconds 16
step "pairing them" \
  "$python" -m pipeline pair "$demo/recordings" --out "$demo/pairs.jsonl" --mode suffix
step "encoding them into shards, with Ray" \
  "$python" -m pipeline encode "$demo/pairs.jsonl" --out "$demo/shards" --codec mdct --config small_shards
step "verifying the shards" \
  "$python" -m shards verify "$demo/shards"
step "training a small model, with two Ray Train workers" \
  "$python" -m training launch --shards "$demo/shards" --run-dir "$demo/run" --config smoke --workers 2
step "making three pieces from pairs it has never heard" \
  "$python" -m training generate --checkpoint "$demo/run/checkpoints/best" --shards "$demo/shards" \
  --split val --count 3 --out "$demo/music"

cat <<END

Made in $((SECONDS - began)) s:
  $demo/recordings   24 pairs of WAV files, drums and piano
  $demo/shards       their latents, in plain tar files
  $demo/run          the model's checkpoints, metrics and MLflow store
  $demo/music        3 pieces: input.wav, target.wav, output.wav, pictures, metrics, and a page to listen to them

Go on:
  listen             xdg-open $demo/music/listen.html
  see the training   .venv/bin/mlflow ui --backend-store-uri sqlite:///$demo/run/mlflow.db
  use your own WAVs  $python -m pipeline pair YOUR_FOLDER --out pairs.jsonl --mode continuation
END

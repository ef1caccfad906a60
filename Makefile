# Every command a developer needs. `make demo` and `make test` make .venv where it is missing.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
DEMO ?= demo
RESULTS ?= runs/results
PACKAGES := shards pipeline training

.PHONY: setup demo test test-fast lint types fix results bench peers clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[ray,mlflow,s3,webdataset,music,dev]'
	touch $@

demo: $(STAMP)
	PYTHON=$(BIN)/python bash deploy/demo.sh $(DEMO)

test: $(STAMP)
	$(BIN)/python -m pytest

test-fast: $(STAMP)
	$(BIN)/python -m pytest -m 'not slow'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

fix: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

results: $(STAMP)
	$(BIN)/python -m benchmarks.results --folder $(RESULTS)

bench: $(STAMP)
	$(BIN)/python -m benchmarks.loader
	$(BIN)/python -m benchmarks.verify
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.encode
	$(BIN)/python -m benchmarks.audio_losses
	$(BIN)/python -m benchmarks.model

# The other loaders pin an older numpy than constraints.txt, so they get an environment of their own.
peers: .venv-bench/.installed
	.venv-bench/bin/python -m benchmarks.loader --json

.venv-bench/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet -e '.[bench]'
	touch $@

clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info

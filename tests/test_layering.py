"""The import rules of the house, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("shards", "pipeline", "training")

ONE_DOOR = {
    "encodec": {"shards/codec/encodec.py"},
    "soundfile": {"shards/audio.py"},
    "soxr": {"shards/audio.py"},
    "mlflow": {"training/tracking.py"},
    "ray": {"shards/cluster.py", "training/launch.py", "training/worker.py"},
    "safetensors": {"training/weights.py", "shards/codec/weights.py"},
    "torchaudio": {"training/losses/filters.py"},
    "fsspec": {"shards/store.py"},
    "filelock": {"shards/store.py", "pipeline/claim.py"},
    "webdataset": {"shards/backend.py"},
    "zlib_ng": {"shards/checksum.py"},
    "librosa": {"pipeline/tempo.py", "training/measures/music.py"},
    "mir_eval": {"training/measures/music.py"},
    "yaml": {"shards/settings.py", "training/checkpoint.py"},
    "jinja2": {"shards/page/document.py"},
    "matplotlib": {"shards/plots.py", "training/plots.py"},
}

# Below each file of training, those that it may never import: the arrows go cli -> launch -> worker -> loop -> step.
ORDER = ["training.cli", "training.launch", "training.worker", "training.loop", "training.step"]
PURE = ("training.models", "training.losses", "training.measures")


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_by(prefix: str) -> dict[str, set[str]]:
    return {file: set(imports(tree)) for file, tree in sources() if module_of(file).startswith(prefix)}


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("shards", ("pipeline", "training")), ("pipeline", ("training",)), ("training", ("pipeline",))],
)
def test_packages_depend_on_shards_alone(package: str, forbidden: tuple[str, ...]) -> None:
    found = imported_by(package)
    assert found, "the package was read"
    leaks = [(file, name) for file, names in found.items() for name in names if name.split(".")[0] in forbidden]
    assert leaks == []


@pytest.mark.parametrize("library", ONE_DOOR)
def test_an_outside_library_has_one_door(library: str) -> None:
    doors = {file for file, tree in sources() for name in imports(tree) if name.split(".")[0] == library}
    assert doors == ONE_DOOR[library]


def test_training_flows_from_the_command_line_down_to_the_step() -> None:
    found = {module_of(file): names for file, names in imported_by("training").items()}
    for place, lower in enumerate(ORDER):
        upward = {name for name in found[lower] for upper in ORDER[:place] if name.startswith(upper)}
        assert upward == set(), f"{lower} imports what stands above it"


@pytest.mark.parametrize("below", PURE)
def test_models_and_losses_know_nothing_of_the_machinery(below: str) -> None:
    allowed = {"training", *PURE}
    for file, names in imported_by(below).items():
        own = {
            name
            for name in names
            if name.startswith("training.") and not name.startswith(tuple(allowed - {"training"}))
        }
        assert own == set(), file
        assert not any(name.startswith(("shards.reader", "shards.dataset", "shards.files")) for name in names), file


@pytest.mark.parametrize(("lower", "upper"), [("losses", "measures"), ("losses", "models"), ("measures", "models")])
def test_losses_know_no_measures_and_neither_of_them_models(lower: str, upper: str) -> None:
    for file, names in imported_by(f"training.{lower}").items():
        assert not any(name.startswith(f"training.{upper}") for name in names), file


def test_the_step_touches_neither_files_nor_processes() -> None:
    names = imported_by("training.step")["training/step.py"]
    outside = {name.split(".")[0] for name in names}
    assert outside.isdisjoint({"os", "pathlib", "io", "ray", "mlflow", "subprocess", "shutil", "logging"})


def test_nothing_shadows_the_standard_library_in_a_job() -> None:
    assert list(ROOT.glob("*.py")) == []


def test_importing_the_packages_starts_nothing() -> None:
    code = (
        "import sys, shards, pipeline, training, shards.cli.app, pipeline.cli.app, training.cli.app\n"
        "heavy = {'torch', 'ray', 'mlflow', 'matplotlib', 'encodec', 'torchaudio', 'jinja2', 'librosa', 'mir_eval'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

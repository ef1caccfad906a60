"""`import-checkpoint`: the seeds' files become checkpoints of ours, and what is none of theirs gets one clear line."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seed_reference as seeds
import torch
from command import Outcome, assert_one_line, run_training
from torch import Tensor

from training.checkpoint import Checkpoint, load_model, open_checkpoint
from training.models.discriminator import Discriminator
from training.models.masking_agent import MaskingOutput
from training.weights import load_exactly

NEAR = 1e-4


def import_checkpoint(path: Path, out: Path, *more: str) -> Outcome:
    return run_training("import-checkpoint", path, "--out", out, *more)


def imported(tmp_path: Path, saved: object, *more: str) -> Checkpoint:
    """Write a file, import it, and open what came of it."""
    outcome = import_checkpoint(seeds.write(tmp_path / "best_model.pt", saved), tmp_path / "out", *more)
    assert outcome.code == 0, outcome.err
    return open_checkpoint(tmp_path / "out")


def assert_near(ours: Tensor, name: str) -> None:
    wanted = seeds.outputs()[name]
    level = np.sqrt(np.square(wanted, dtype=np.float64).mean())
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=NEAR, atol=NEAR * level, err_msg=name)


@torch.no_grad()
@pytest.mark.parametrize("name", seeds.MODELS)
def test_an_imported_model_gives_the_seeds_output(tmp_path: Path, name: str) -> None:
    path = seeds.write(tmp_path / "best_model.pt", seeds.content(name))
    outcome = import_checkpoint(path, tmp_path / "out", "--json")
    assert outcome.code == 0, outcome.err
    (part,) = outcome.json["parts"].values()
    assert (part["share"], part["reinitialised"], part["dropped"]) == (1.0, {}, [])
    assert (outcome.json["epoch"], outcome.json["agent"]) == (seeds.EPOCH, seeds.AGENTS.get(name, "none"))
    output = load_model(tmp_path / "out")(*seeds.latents())
    assert_near(output.latents, f"{name}/output")
    if output.agent is not None:
        losses = output.agent.losses
        masking = isinstance(output.agent, MaskingOutput)
        loss = losses["mask_regularisation"] if masking else losses["novelty"] + losses["balance"]
        assert_near(loss, f"{name}/agent_loss")


def test_their_arguments_become_the_configuration(tmp_path: Path) -> None:
    args = {"mask_type": "frequency", "mask_freq_split": 0.4, "anti_cheating": 0.2, "dropout": 0.05, "seed": 7}
    checkpoint = imported(tmp_path, seeds.content("cascade_masking", args=args))
    config = checkpoint.config
    assert config.compat == "seeds"
    cascade = config.model.cascade
    assert (cascade.stages, cascade.layers, cascade.heads) == (2, 2, 8)
    assert (cascade.dropout, cascade.anti_cheating, cascade.spectral_norm) == (0.05, 0.2, True)
    assert (config.model.agent, config.model.fixed_masks.kind, config.model.fixed_masks.split) == (
        "masking", "frequency", 0.4,
    )  # fmt: skip
    losses = config.losses
    assert (losses.rms_input, losses.rms_target, losses.gan) == (0.25, 0.35, 0.0)
    assert (losses.mask_regularisation, losses.balance, losses.modulation_correlation) == (0.5, 5.0, 0.4)
    assert (config.optimizer.learning_rate, config.data.batch_size) == (2e-4, 16)
    assert (config.train.epochs, config.train.seed) == (200, 7)
    record = checkpoint.record
    assert (record.codec.name, record.codec.stage, record.dataset_fingerprint) == ("encodec", "pre_quantizer", None)
    assert record.origin is not None
    assert record.origin["file"] == "best_model.pt"
    assert {name: record.origin[name] for name in ("epoch", "train_loss", "val_loss", "best_val_loss")} == {
        "epoch": seeds.EPOCH, "train_loss": 0.5, "val_loss": 0.75, "best_val_loss": 0.625,
    }  # fmt: skip
    assert checkpoint.progress.step == 0, "a training that goes on from it is a new one"


def test_the_numbers_of_this_project_are_there_for_the_asking(tmp_path: Path) -> None:
    path = seeds.write(tmp_path / "best_model.pt", seeds.content("cascade_masking"))
    outcome = import_checkpoint(path, tmp_path / "out", "--compat", "none", "--json")
    assert open_checkpoint(tmp_path / "out").config.compat == "none"
    dropped = outcome.json["parts"]["model"]["dropped"]
    assert dropped, "the style discriminator"
    assert all(name.startswith("agent.style_discriminator.") for name in dropped)
    with torch.no_grad():
        assert_near(load_model(tmp_path / "out")(*seeds.latents()).latents, "cascade_masking/output")


@torch.no_grad()
def test_a_discriminator_comes_along(tmp_path: Path) -> None:
    checkpoint = imported(tmp_path, seeds.content("single", gan=True, args={"disc_lr": 5e-5}))
    assert (checkpoint.config.losses.gan, checkpoint.config.discriminator.learning_rate) == (0.15, 5e-5)
    discriminator = Discriminator(checkpoint.config.discriminator, 128).eval()
    load_exactly(discriminator, checkpoint.weights("discriminator"), checkpoint.path)
    real, fake = (discriminator(latents) for latents in seeds.latents())
    assert_near(real, "discriminator/real_logits")
    assert_near(fake, "discriminator/fake_logits")


def test_a_missing_discriminator_is_made_anew_and_named(tmp_path: Path) -> None:
    path = seeds.write(tmp_path / "best_model.pt", seeds.content("single", args={"gan_weight": 0.1}))
    outcome = import_checkpoint(path, tmp_path / "out")
    assert outcome.code == 0
    assert f"{path}: 100.0% of the model: 32 tensors kept, 0 re-initialised, 0 dropped" in outcome.err
    assert "0.0% of the discriminator: 0 tensors kept, 12 re-initialised" in outcome.err
    assert "re-initialised: convolutions.0.weight (is missing)" in outcome.err
    assert open_checkpoint(tmp_path / "out").has("discriminator")


def test_files_of_several_processes_and_of_the_parser_are_read_as_well(tmp_path: Path) -> None:
    saved = seeds.content("cascade_masking", args={"nhead": 8})
    saved["model_state_dict"] = {f"module.{key}": value for key, value in saved["model_state_dict"].items()}
    saved["args"] = argparse.Namespace(**saved["args"])
    checkpoint = imported(tmp_path, saved)
    assert checkpoint.config.losses.balance == 5.0
    with torch.no_grad():
        assert_near(load_model(checkpoint.path)(*seeds.latents()).latents, "cascade_masking/output")


def test_plain_weights_without_arguments_are_enough(tmp_path: Path) -> None:
    checkpoint = imported(tmp_path, {"model_state_dict": seeds.state_dict("cascade"), "args": "lost", "epoch": "?"})
    assert checkpoint.config.model.cascade.layers == 2
    with torch.no_grad():
        assert_near(load_model(checkpoint.path)(*seeds.latents()).latents, "cascade/output")


def test_an_older_selector_is_made_anew_and_the_rest_is_kept(tmp_path: Path) -> None:
    saved = seeds.content("cascade_compositional", args={"mask_reg_weight": 0.3})
    prefix = "creative_agent.component_selector.2"
    saved["model_state_dict"] |= {f"{prefix}.weight": torch.ones(384, 256, 1), f"{prefix}.bias": torch.ones(384)}
    path = seeds.write(tmp_path / "best_model.pt", saved)
    outcome = import_checkpoint(path, tmp_path / "out")
    assert outcome.code == 0
    assert outcome.err.splitlines() == [
        f"{path}: 99.9% of the model: 186 tensors kept, 2 re-initialised, 0 dropped",
        "  re-initialised: agent.selector.2.weight (has [384, 256, 1], wants [6, 256, 1])",
        "  re-initialised: agent.selector.2.bias (has [384], wants [6])",
    ]
    checkpoint = open_checkpoint(tmp_path / "out")
    weights = checkpoint.weights()
    assert float(weights["agent.selector.2.weight"].std()) > 0
    assert torch.equal(weights["agent.selector.0.bias"], saved["model_state_dict"][f"{prefix[:-1]}0.bias"])
    losses = checkpoint.config.losses
    assert (losses.novelty, losses.balance) == (0.3, 0.3), "the seeds had one weight for both"


@pytest.mark.parametrize(
    ("lost", "again"),
    [
        ("creative_agent.mask_generator.input_mask_generator.", "agent.input_head.0.weight"),
        ("creative_agent.", "agent.cross_attention.in_proj_weight"),
        ("cascade_stages.1.", "stages.1.layers.0.qkv.weight"),
        ("cascade_stages.0.transformer.layers.0.", "stages.0.layers.0.qkv.weight"),
    ],
)
def test_a_missing_part_is_made_anew_and_named(tmp_path: Path, lost: str, again: str) -> None:
    saved = seeds.content("cascade_masking")
    saved["model_state_dict"] = {k: v for k, v in saved["model_state_dict"].items() if not k.startswith(lost)}
    path = seeds.write(tmp_path / "best_model.pt", saved)
    outcome = import_checkpoint(path, tmp_path / "out", "--json")
    assert outcome.code == 0, outcome.err
    part = outcome.json["parts"]["model"]
    assert part["reinitialised"][again] == "is missing"
    assert part["dropped"] == []
    assert 0 < part["share"] < 1
    config = open_checkpoint(tmp_path / "out").config.model
    assert (config.agent, config.cascade.stages, config.cascade.layers) == ("masking", 2, 2)
    load_model(tmp_path / "out")


def test_what_is_made_anew_is_always_made_alike(tmp_path: Path) -> None:
    saved = seeds.content("single", args={"gan_weight": 0.1, "seed": 3})
    del saved["model_state_dict"]["transformer.layers.0.linear1.weight"]
    path = seeds.write(tmp_path / "best_model.pt", saved)
    outs = []
    for number, name in enumerate(("out", "again")):
        torch.manual_seed(number)
        assert import_checkpoint(path, tmp_path / name).code == 0
        outs.append(open_checkpoint(tmp_path / name))
    for part in ("model", "discriminator"):
        first, second = (checkpoint.weights(part) for checkpoint in outs)
        assert all(torch.equal(first[name], second[name]) for name in first), part
    assert float(first["convolutions.0.weight"].std()) > 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_parameters_that_are_not_finite_are_refused_with_the_way_back(tmp_path: Path, bad: float) -> None:
    def save(name: str, epoch: int, *broken: str) -> Path:
        saved = seeds.content("single", epoch=epoch)
        for key in broken:
            saved["model_state_dict"][key].view(-1)[1] = bad
        return seeds.write(tmp_path / name, saved)

    key = "transformer.layers.1.linear2.weight"
    broken = save("epoch_30.pt", 30, key)
    refused = import_checkpoint(broken, tmp_path / "out")
    assert_one_line(refused, 1, f"epoch_30.pt: {key} is not finite, at epoch 30; go back to an epoch before it")
    save("epoch_10.pt", 10)
    save("epoch_20.pt", 20)
    save("epoch_25.pt", 25, "input_norm.bias")
    save("epoch_40.pt", 40)
    (tmp_path / "notes.pt").write_text("none of them")
    refused = import_checkpoint(broken, tmp_path / "out")
    assert_one_line(refused, 1, f"{key} is not finite, at epoch 30; go back to epoch 20: import epoch_20.pt")
    many = save("epoch_30.pt", 30, key, "output_proj.bias")
    assert_one_line(import_checkpoint(many, tmp_path / "out"), 1, f"{key} and 1 more are not finite")
    assert not (tmp_path / "out").exists()


def test_a_discriminator_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    saved = seeds.content("single", gan=True)
    saved["discriminator_state_dict"]["classifier.3.bias"][0] = float("nan")
    path = seeds.write(tmp_path / "best_model.pt", saved)
    assert_one_line(import_checkpoint(path, tmp_path / "out"), 1, "classifier.3.bias is not finite, at epoch 41")


class Malicious:
    """What unpickling would carry out."""

    def __init__(self, witness: Path) -> None:
        self._witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._witness),)


def foreign(tmp_path: Path) -> dict[str, tuple[bytes | object, str]]:
    """Files that are none of the seeds' checkpoints: bytes, or what is saved; and words of the one line for each."""
    whole = seeds.write(tmp_path / "whole.pt", seeds.content("single")).read_bytes()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    script = (tmp_path / "script.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        archive.writestr("letter.txt", "hello")
    weights = seeds.state_dict("single")
    wide = {**weights, "output_proj.bias": torch.zeros(64)}
    return {
        "text": (b"hello\n", "can't be read as a torch checkpoint"),
        "empty": (b"", "can't be read as a torch checkpoint"),
        "cut": (whole[: len(whole) // 2], "can't be read as a torch checkpoint"),
        "zip": ((tmp_path / "plain.zip").read_bytes(), "can't be read as a torch checkpoint"),
        "script": (script, "can't be read as a torch checkpoint"),
        "pickle": (pickle.dumps({"model_state_dict": {}}), "is no torch checkpoint"),
        "tensor": (torch.zeros(3), "no checkpoint of the seeds (found: Tensor)"),
        "list": ([1, 2], "no checkpoint of the seeds (found: list)"),
        "no weights": ({"epoch": 3, "state": {}}, "no checkpoint of the seeds (found: epoch, state)"),
        "weights alone": (weights, "no checkpoint of the seeds (found: input_norm.weight"),
        "another model": ({"model_state_dict": seeds.state_dict("discriminator")}, "is of another model"),
        "another shape": ({"model_state_dict": {"output_proj.bias": torch.zeros(128)}}, "is of another model"),
        "other latents": ({"model_state_dict": wide}, "is of latents of 64 channels; wants a model of EnCodec's 128"),
    }


def test_a_file_that_is_none_of_the_seeds_gets_one_line(tmp_path: Path) -> None:
    for name, (saved, words) in foreign(tmp_path).items():
        path = tmp_path / f"{name}.pt"
        path.write_bytes(saved) if isinstance(saved, bytes) else torch.save(saved, path)
        assert_one_line(import_checkpoint(path, tmp_path / "out"), 1, f"{name}.pt", words)
        assert not (tmp_path / "out").exists()
    assert_one_line(import_checkpoint(tmp_path / "none.pt", tmp_path / "out"), 1, "none.pt: there is no such file")


def test_damage_anywhere_in_a_file_gets_one_line_at_most(tmp_path: Path) -> None:
    """Whatever a flipped byte makes of torch's reader: an import, or one line."""
    whole = seeds.write(tmp_path / "whole.pt", seeds.content("single")).read_bytes()
    with zipfile.ZipFile(tmp_path / "whole.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in parts if name.endswith("data.pkl"))
    random, refused = np.random.default_rng(0), 0
    for number in range(60):
        path = tmp_path / f"{number}.pt"
        if number % 2:
            damaged = bytearray(parts[pickled])
            damaged[random.integers(min(len(damaged), 400))] ^= int(random.integers(1, 256))
            with zipfile.ZipFile(path, "w") as archive:
                for name, part in parts.items():
                    archive.writestr(name, bytes(damaged) if name == pickled else part)
        else:
            path.write_bytes(whole[: random.integers(len(whole))])
        outcome = import_checkpoint(path, tmp_path / f"out-{number}")
        if outcome.code != 0:
            refused += 1
            assert outcome.err.startswith("error: ")
            assert outcome.err.count("\n") == 1, outcome.err
    assert refused > 30


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    path = seeds.write(tmp_path / "bad.pt", seeds.content("single", extra=Malicious(witness)))
    assert_one_line(import_checkpoint(path, tmp_path / "out"), 1, "bad.pt: holds posix.mkdir, which is no plain data")
    assert not witness.exists()
    # The same file does it where it is unpickled: the test is one.
    torch.load(path, weights_only=False)
    assert witness.exists()


def test_what_exists_is_left_as_it_is(tmp_path: Path) -> None:
    path = seeds.write(tmp_path / "best_model.pt", seeds.content("single"))
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert_one_line(import_checkpoint(path, out), 2, "out: exists already; choose another --out")
    assert [file.name for file in out.iterdir()] == ["mine.txt"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["best_model.pt", "out"]


def test_the_codecs_weights_are_the_published_ones_unless_others_are_named(tmp_path: Path) -> None:
    path = seeds.write(tmp_path / "best_model.pt", seeds.content("single"))
    refused = import_checkpoint(path, tmp_path / "out", "--codec-sha256", "abc")
    assert_one_line(refused, 2, "--codec-sha256 abc: is no SHA-256; give 64 hex digits")
    assert import_checkpoint(path, tmp_path / "out", "--codec-sha256", "a" * 64).code == 0
    assert open_checkpoint(tmp_path / "out").record.codec.weights_sha256 == "a" * 64


def test_generation_from_a_file_of_theirs_says_what_reads_it(tmp_path: Path) -> None:
    path = seeds.write(tmp_path / "best_model.pt", seeds.content("single"))
    refused = run_training("generate", "--checkpoint", path, "--shards", tmp_path, "--out", tmp_path / "out")
    assert_one_line(refused, 1, "a file of the seeds is read by `python -m training import-checkpoint`")

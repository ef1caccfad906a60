"""Forward and backward of the default model's first stage, against the same stage with dropout in its attention.

The baseline takes PyTorch's own transformer layer of the same size, in training mode with dropout 0.1 everywhere.
Sources [2, 128, 1200] twice, float32, 6 layers of width 256.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from benchmarks.timing import compare, measure, report, use_one_thread, wants_json
from training.models.build import ModelConfig
from training.models.cascade import Stage

BATCH, DIM, FRAMES = 2, 128, 1200
BASELINE = "attention with dropout"


def main() -> None:
    as_json = wants_json(__doc__ or "")
    use_one_thread()
    torch.manual_seed(0)
    sources = torch.randn(2, BATCH, DIM, FRAMES)
    stages = {BASELINE: stage_with_attention_dropout(), "attention without dropout": make_stage()}
    seconds = measure({name: partial(forward_backward, stage, sources) for name, stage in stages.items()})
    title = f"First stage, forward and backward, batch {BATCH}, {FRAMES} frames"
    report(title, BASELINE, compare(seconds, BASELINE), as_json=as_json)


def make_stage() -> Stage:
    """Build the first stage of the default model, in training mode."""
    return Stage(ModelConfig().cascade, 2 * DIM, DIM).train()


def stage_with_attention_dropout() -> Stage:
    """Build the same stage around PyTorch's transformer layers."""
    config, width = ModelConfig().cascade, 2 * DIM
    stage = make_stage()
    stage.layers = nn.ModuleList(
        nn.TransformerEncoderLayer(
            width, config.heads, config.feedforward * width, config.dropout, "gelu", batch_first=True
        )
        for _ in range(config.layers)
    )
    return stage.train()


def forward_backward(stage: Stage, sources: torch.Tensor) -> None:
    """Compute a value and its gradient for every weight."""
    stage.zero_grad(set_to_none=True)
    torch.autograd.backward(stage(*sources).square().mean())


if __name__ == "__main__":
    main()

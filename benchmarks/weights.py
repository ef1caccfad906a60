"""EnCodec's architecture with seeded weights: time and memory do not depend on their values, and nothing is fetched."""

from __future__ import annotations

import warnings
from pathlib import Path

import encodec.model
import torch


def seeded_weights(folder: Path) -> Path:
    """Write a weights file into `folder`; gives its path."""
    torch.manual_seed(0)
    path = folder / "seeded.th"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.save(encodec.model.EncodecModel.encodec_model_24khz(pretrained=False).state_dict(), path)
    return path

"""Where this project departs from the numbers of the seeds, and how to get theirs.

`compat: seeds` computes what the implementation that this project comes from computed, mistakes included. Each stands
at its place in the code; together they are:

- the compositional agent's balance penalty is taken of logits, which softmax lets drift, not of the weights;
- its novelty is the absolute value of a mean, so that likeness here and unlikeness there count as novel;
- errors of audio and spectra are taken over the batch as if it were one recording, so the loudest pair decides;
- the spectral distance to a silent source is divided by 1e-6, so that one such crop outweighs a whole training;
- the rhythm correlation divides by n in one place and by n - 1 in the other: a copy has less than 1;
- the masking agent carries a style discriminator that nothing calls.
"""

from __future__ import annotations

from typing import Literal

Compat = Literal["none", "seeds"]

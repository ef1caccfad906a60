"""One stage alone: continues the input without hearing a target (the seeds' `num_transformer_layers` 1)."""

from __future__ import annotations

from torch import Tensor, nn

from training.models.cascade import CascadeConfig, ModelOutput, Projection, check_latents, make_layers


class Single(nn.Module):
    """LayerNorm, transformer layers and a projection over the input, without positions, target, agent or levels."""

    def __init__(self, config: CascadeConfig, dim: int) -> None:
        super().__init__()
        self._dim, self._residual = dim, (*config.residual_weights, 1.0)[0]
        self.input_norm = nn.LayerNorm(dim)
        self.layers = make_layers(config, dim)
        self.projection = Projection(config, dim, dim)

    def compiled_parts(self) -> list[nn.Module]:
        """What is worth compiling, and compiles as a whole."""
        return [self]

    def schedule(self, step: int) -> None:
        """Nothing here depends on how far the training is."""

    def forward(self, input_latents: Tensor, target_latents: Tensor | None = None) -> ModelOutput:  # noqa: ARG002
        """Continue input latents [B, D, T]; a target is not heard. Raises `ValueError` as the cascade does."""
        check_latents(self, self._dim, input=input_latents)
        source = input_latents.float()
        x = self.input_norm(source.transpose(1, 2))
        for layer in self.layers:
            x = layer(x)
        output: Tensor = self.projection(x) + self._residual * source
        one = output.new_ones(len(output), 1, 1)
        return ModelOutput(output, None, one, one == 0)

"""Where a rank runs: what the loop may know about its surroundings, handed in by Ray Train, or by nobody."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Runtime:
    """Rank, world size and device of a training process."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this rank writes files and logs."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Wrap a model for this world: gradients are averaged over the ranks."""
        if self.world_size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        # Most buffers are functions of the weights (spectral norm) or fixed, and so equal on all ranks anyway; the
        # running statistics of batches are not, and `share_statistics` is for these.
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)

    def share_statistics(self, model: nn.Module) -> None:
        """Give all ranks the running statistics of rank 0, those that a checkpoint keeps."""
        if self.world_size == 1:
            return
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                for buffer in module.buffers():
                    dist.broadcast(buffer, 0)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the ranks."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor


def local_runtime() -> Runtime:
    """Be the only rank, on the GPU where there is one."""
    return Runtime(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))

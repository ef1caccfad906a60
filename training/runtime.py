"""Where a rank runs: what the loop may know about its surroundings, handed in by Ray Train, torchrun, or nobody."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from shards.errors import MisuseError


@dataclass(frozen=True)
class Runtime:
    """Rank, world size and device of a training process, and the group in which ranks agree without their GPUs."""

    rank: int
    world_size: int
    device: torch.device
    control: dist.ProcessGroup | None = None

    @property
    def leads(self) -> bool:
        """Whether this rank writes files and logs."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Wrap a model for this world: gradients are averaged over the ranks."""
        if self.world_size == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        # Most buffers are functions of the weights (spectral norm) or fixed, and so equal on all ranks anyway; the
        # running statistics of batches are not, and `share_statistics` is for these.
        return DistributedDataParallel(
            module, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
        )

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

    def memory(self) -> dict[str, float]:
        """Tell the most memory that this process has held, in MB: of the machine, and of the GPU where there is one."""
        peak = {"memory/peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        if self.device.type == "cuda":
            peak["memory/gpu_peak_mb"] = torch.cuda.max_memory_allocated(self.device) / 2**20
        return peak

    def agree(self, wish: int) -> int:
        """Give the largest wish of all ranks; every rank must call it. The GPU goes on meanwhile."""
        if self.world_size == 1:
            return wish
        wishes = torch.tensor(wish)
        dist.all_reduce(wishes, dist.ReduceOp.MAX, group=self.control)
        return int(wishes)

    def gather(self, text: str) -> list[str]:
        """Give the texts of all ranks, in their order, each cut to 500 bytes; every rank must call it."""
        if self.world_size == 1:
            return [text]
        own = torch.zeros(500, dtype=torch.uint8)
        encoded = torch.tensor(list(text.encode()[: len(own)]), dtype=torch.uint8)
        own[: len(encoded)] = encoded
        everyone = [torch.zeros_like(own) for _ in range(self.world_size)]
        dist.all_gather(everyone, own, group=self.control)
        return [bytes(one.tolist()).rstrip(b"\0").decode(errors="replace") for one in everyone]


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def local_rank() -> int:
    """Give the rank of this process among those that torchrun started; 0 where nobody started several."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def local_runtime(device: Literal["auto", "cpu", "gpu"] = "auto") -> Iterator[Runtime]:
    """Be the only rank, on a GPU where there is one, or one of those that torchrun started.

    Raises `MisuseError` where a GPU is wanted and there is none.
    """
    gpu = device != "cpu" and torch.cuda.is_available()
    if device == "gpu" and not gpu:
        raise MisuseError("--device gpu: this machine has no GPU that torch can use; choose --device cpu")
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Runtime(0, 1, torch.device("cuda" if gpu else "cpu"))
        return
    place = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if gpu else "gloo")
    yield grouped_runtime(local_rank(), world_size, place)
    dist.destroy_process_group()  # not after an error: another rank may wait in a collective, and this would, too


def grouped_runtime(rank: int, world_size: int, device: torch.device) -> Runtime:
    """Be a rank of a process group that exists; every rank must call it."""
    control = dist.new_group(backend="gloo") if world_size > 1 else None
    return Runtime(rank, world_size, device, control)

"""The workers of a job: who they are, and the few words that they exchange."""

from __future__ import annotations

import os
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist


class Workers:
    """This process as one of a group, joined for the time of a `with` block.

    Reads torchrun's variables, which gpusched sets too: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT. Without
    them the process is a group of one.

    Attributes:
        rank: number of this worker, from 0.
        size: how many workers there are.
        device: what this worker computes on.
        backend: nccl where every worker has a GPU of its own, else gloo.
    """

    def __init__(self, backend: str = "auto") -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = _device()
        self.backend = backend if backend != "auto" else "nccl" if self.device.type == "cuda" else "gloo"

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.size == 1:
            dist.init_process_group(self.backend, store=dist.HashStore(), rank=0, world_size=1)
        else:
            dist.init_process_group(self.backend, timeout=timedelta(minutes=5))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        dist.destroy_process_group()

    def wait_for_all(self) -> None:
        """Return when every worker is here."""
        dist.barrier()

    def any(self, answer: bool) -> bool:  # noqa: FBT001 - any(flag) reads as the built-in does
        """Whether one of the workers says yes. Every worker gets the same answer."""
        said = torch.tensor(int(answer), device=self.device)
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said)

    def sum(self, numbers: torch.Tensor) -> torch.Tensor:
        """The workers' numbers added up, as a new tensor on the CPU."""
        total = numbers.detach().clone().to(self.device)
        dist.all_reduce(total)
        return total.cpu()

    def first(self, value: Any) -> Any:  # noqa: ANN401 - whatever can be pickled
        """The value of rank 0; what the others give is ignored."""
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401 - whatever can be pickled
        """The values of all workers by rank."""
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # torchrun shows all GPUs of the machine to each worker, gpusched shows each worker its own alone.
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())

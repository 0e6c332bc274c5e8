"""Device and thread count, which decide the order of floating-point sums."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pipeline.errors import UserError
from pipeline.key import Json, canonical
from pipeline.machine.devices import unusable
from pipeline.machine.gpus import gpu_of
from pipeline.machine.processor import in_key, overruled_on_gpus


def device_in_key(device: str) -> str:
    """What a key says of a device: `cpu`, or the model and compute capability of the GPU.

    Variables of the environment that make a GPU multiply otherwise, as in TF32, are said too.
    Which of several equal GPUs it is does not count. Where the GPU is not known, as in a plan that
    is made on another machine, it is only `cuda`.
    """
    kind, gpu = device.partition(":")[0], gpu_of(device)
    more = overruled_on_gpus() if kind == "cuda" else ()
    return ", ".join((kind, *((gpu.name, gpu.architecture) if gpu else ()), *more))


@dataclass(frozen=True, kw_only=True, slots=True)
class Numerics:
    """Device and threads on which a stage computes; part of the key of every such stage.

    `device` is "cpu", "cuda" (the first GPU) or "cuda:1"; `threads` is the number of CPU threads
    that one operation uses.
    """

    device: str = field(default="cpu", metadata={"key": device_in_key})
    threads: int = 1

    def __post_init__(self) -> None:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise UserError(
                f"device is {self.device!r}", remedy="choose one of cpu, cuda, cuda:0, cuda:1, ..."
            )
        if self.threads < 1:
            raise UserError(f"threads is {self.threads}", remedy="give 1 or more")

    def apply(self) -> None:
        """Configure torch for this thread; UserError if the device is missing.

        A kernel is launched on the current GPU of the thread that calls it.
        """
        import torch

        if self.device != "cpu":
            if not torch.cuda.is_available():
                reason = unusable(self.device) or "torch cannot use it"
                raise UserError(
                    f"device is {self.device!r}, but {reason}",
                    remedy="say device=cpu, or look at `python -m pipeline mode=doctor`",
                )
            torch.cuda.set_device(int(self.device.partition(":")[2] or 0))
        torch.set_num_threads(self.threads)


def summed(numerics: Numerics) -> Json:
    """What a key says where a result depends on the order of floating-point sums.

    That order is the libraries' choice, by the processor; what only rounds entry by entry has the
    same bytes on every one, and says `canonical(numerics)`.
    """
    found: Json = canonical(numerics)
    return {**found, "device": in_key()} if numerics.device == "cpu" else found

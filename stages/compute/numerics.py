"""What decides the order of floating-point sums besides the data: device and thread count."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import UserError

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, kw_only=True, slots=True)
class Numerics:
    """Where the arithmetic of a stage runs; part of the key of every stage that computes.

    `device` is "cpu" or "cuda"; `threads` is the number of threads of one operation on a CPU.
    """

    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise UserError(
                f"device is {self.device!r}", remedy=f"choose one of {', '.join(DEVICES)}"
            )
        if self.threads < 1:
            raise UserError(f"threads is {self.threads}", remedy="give 1 or more")

    def apply(self) -> None:
        """Set torch up for this process; raises UserError where the device is missing."""
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError(
                "device is 'cuda', but torch finds no CUDA device here",
                remedy="say device=cpu, or look at `python -m pipeline mode=doctor`",
            )
        torch.set_num_threads(self.threads)

"""Device and thread count, which decide the order of floating-point sums."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import UserError

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, kw_only=True, slots=True)
class Numerics:
    """Device and threads on which a stage computes; part of the key of every such stage.

    `device` is "cpu" or "cuda"; `threads` is the number of CPU threads that one operation uses.
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
        """Configure torch for this process; UserError if the device is missing."""
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError(
                "device is 'cuda', but torch finds no CUDA device here",
                remedy="say device=cpu, or look at `python -m pipeline mode=doctor`",
            )
        torch.set_num_threads(self.threads)

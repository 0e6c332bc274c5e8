"""Config schema of `calibrate`, shared by the calibration stages."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.errors import UserError
from pipeline.key import Json, canonical
from stages.compute.numerics import Numerics, summed

PROPAGATE = ("compressed", "original")
EXPERTS = ("all", "routed")
LIGHTER = "lower calibrate.memory, which changes no result, or calibrate.batch_size, which does"
"""What to do where a stage that replays layers runs out of memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrateConfig:
    """Options of the pass of calibration data through the model.

    In keys: `propagate` only decides how the graph is wired, so no key contains it; `experts` is in
    that of `patch`, whose result contains it; `memory` decides where activations and passing
    statistics lie during a run, which changes no result.
    """

    propagate: str = field(default="compressed", metadata={"key": False})
    """What the next layer is fed: the outputs of the compressed layer before it, most accurate, or
    of the original one, whose statistics all jobs of a sweep share."""
    experts: str = field(default="all", metadata={"key": False})
    """The tokens that a routed expert is calibrated with: all, or those routed to it."""
    memory: int | None = field(default=None, metadata={"key": False, "unit": "bytes"})
    """Bytes of activations and passing statistics that stay in memory, on the GPU and in that of
    the host each; what is beyond goes to the disk. null: a quarter of each, less where a layer
    itself needs more than the rest."""
    batch_size: int | None = 4
    """Sequences that run at once; part of the key, because it decides the order of sums. null: as
    many as `batch_memory` allows, a power of two (:mod:`stages.calibrate.batch_size`)."""
    batch_memory: int | None = field(default=None, metadata={"key": False, "unit": "bytes"})
    """Bytes that the forward of a batch may take where `batch_size` is null; null: a sixteenth of
    all the memory of the device, used or not. What is chosen is in the key."""

    def __post_init__(self) -> None:
        for name, allowed in (("propagate", PROPAGATE), ("experts", EXPERTS)):
            value = getattr(self, name)
            if value not in allowed:
                raise UserError(
                    f"calibrate.{name} is {value!r}", remedy=f"choose one of {', '.join(allowed)}"
                )
        if self.memory is not None and self.memory < 0:
            raise UserError(
                f"calibrate.memory is {self.memory}",
                remedy="give a number of bytes, 0 for the disk only, or null for a quarter of all",
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise UserError(
                f"calibrate.batch_size is {self.batch_size}",
                remedy="give 1 or more sequences, or null for what calibrate.batch_memory allows",
            )
        if self.batch_memory is not None and self.batch_memory < 1:
            raise UserError(
                f"calibrate.batch_memory is {self.batch_memory}",
                remedy="give a number of bytes, or null for a sixteenth of the device's memory",
            )

    @property
    def sequences(self) -> int:
        """The batch size, once it is settled."""
        if self.batch_size is None:
            raise UserError(
                "calibrate.batch_size is null, and the model or the tokens are not known",
                remedy="say a number, or give its node in graph.nodes the inputs model and tokens",
            )
        return self.batch_size


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerConfig:
    """`batch_size` and `numerics` decide the order of sums, and so are part of the key."""

    calibrate: CalibrateConfig = field(default_factory=CalibrateConfig)
    numerics: Numerics = field(default_factory=Numerics, metadata={"key": summed})

    def with_gram(self) -> Json:
        """The key of a stage that gathers Gram matrices: on a GPU it tells how they are summed.

        See :mod:`stages.compute.gram`.
        """
        on_gpu = {} if self.numerics.device == "cpu" else {"gram": "half products, float32 sums"}
        return {**canonical(self), **on_gpu}

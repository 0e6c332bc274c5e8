"""Quantization args of one tensor: plain values, validated without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from packaging.version import Version

from pipeline.errors import UserError
from pipeline.key import WHEN_SET

LIBRARY = "compressed-tensors"
SIX_BITS = Version("0.20.0")
"""The first compressed-tensors that packs floats of 6 bits (E2M3)."""
TYPES = ("int", "float")
WEIGHT_STRATEGIES = ("tensor", "channel", "group", "block", "tensor_group")
ACTIVATION_STRATEGIES = ("tensor", "token", "group", "tensor_group")
STATE_STRATEGIES = ("tensor", "attn_head", "tensor_group")
DYNAMIC = (False, True, "local")
SCALE_DTYPES = ("float8_e4m3fn", "uint8")
SCALE_RULES = ("floor", "even", "rceil", "compressed_tensors", "search")
ZP_DTYPES = ("int8", "float8_e4m3fn", "uint8")
OBSERVERS = {
    "static_minmax": (),
    "minmax": ("averaging_constant",),
    "memoryless_minmax": (),
    "mse": ("maxshrink", "grid", "norm"),
}
"""Observers of calibrated inputs, and the options of each."""
GROUPED = ("group", "tensor_group")
FLOAT_GROUPS = {"float8_e4m3fn": ("tensor_group", 16), "uint8": ("group", 32)}
"""Dtypes of scales that are small floats themselves, and the only groups they are defined for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QArgs:
    """Quantization args of one tensor, with the fields of compressed-tensors' QuantizationArgs.

    `dynamic` true computes scales on the fly; "local" does so for the group scales only and keeps a
    calibrated global scale (NVFP4 inputs). `observer` is for calibrated activations: static_minmax
    (the default) covers all values seen, minmax is a moving average over batches with
    `observer_kwargs.averaging_constant` (0.01), memoryless_minmax takes the last batch, mse
    searches for the range with the least error. The observer of weights belongs to the solver
    (`modifier.gptq.observer`).
    """

    num_bits: int = 8
    """Bits of a code."""
    type: str = "int"
    """int or float codes."""
    symmetric: bool = True
    """Whether codes are symmetric about zero, so that no zero points are needed."""
    strategy: str = "tensor"
    """Which elements share a scale."""
    group_size: int | None = None
    """How many neighbouring columns share a scale (strategies group and tensor_group)."""
    block_structure: list[int] | None = None
    """Rows and columns of a block that shares a scale (strategy block)."""
    dynamic: Any = False
    observer: str | None = None
    observer_kwargs: dict[str, float] | None = None
    """Options of the observer."""
    scale_dtype: str | None = None
    """What scales are stored in, where not in the model's dtype."""
    zp_dtype: str | None = None
    """What zero points are stored in."""
    scale_rule: str | None = field(default=None, metadata={"key": WHEN_SET})
    """How powers of two are chosen for MX weights: search tries the neighbours, and keeps the best.

    floor, even and rceil as torchao has them; null: compressed_tensors, as llm-compressor does.
    """

    def __post_init__(self) -> None:
        member("type", self.type, TYPES)
        member("strategy", self.strategy, (*WEIGHT_STRATEGIES, "token", "attn_head"))
        member("dynamic", self.dynamic, DYNAMIC)
        member("scale_dtype", self.scale_dtype, (None, *SCALE_DTYPES))
        member("zp_dtype", self.zp_dtype, (None, *ZP_DTYPES))
        member("observer", self.observer, (None, *OBSERVERS))
        member("scale_rule", self.scale_rule, (None, *SCALE_RULES))
        if self.type == "int" and not 2 <= self.num_bits <= 8:
            raise UserError(f"num_bits is {self.num_bits}", remedy="integers have 2 to 8 bits")
        if self.type == "float" and self.num_bits not in (4, 6, 8):
            raise UserError(f"num_bits is {self.num_bits}", remedy="floats have 4, 6 or 8 bits")
        if self.type == "float" and self.num_bits == 6:
            check_six_bits()
        if self.type == "float" and not self.symmetric:
            raise UserError(
                "symmetric is false for a float type", remedy="floats are symmetric: drop it"
            )
        self._check_shape()
        self._check_scales()
        self._check_observer()
        if self.dynamic is True and self.observer is not None:
            raise UserError(
                f"observer is {self.observer!r} for dynamic quantization, which observes nothing",
                remedy="drop observer, or say dynamic: false",
            )
        if self.dynamic == "local" and self.strategy != "tensor_group":
            raise UserError(
                f"dynamic is 'local' with strategy {self.strategy!r}",
                remedy="'local' goes with strategy tensor_group",
            )

    def _check_shape(self) -> None:
        if self.strategy in GROUPED and (self.group_size is None or self.group_size < 1):
            raise UserError(
                f"group_size is {self.group_size} with strategy {self.strategy!r}",
                remedy="give a positive group_size, such as 128",
            )
        if self.strategy not in GROUPED and self.group_size is not None:
            raise UserError(
                f"group_size is {self.group_size} with strategy {self.strategy!r}",
                remedy="only the strategies group and tensor_group have groups",
            )
        block = self.block_structure
        if (self.strategy == "block") != (block is not None):
            raise UserError(
                f"block_structure is {block} with strategy {self.strategy!r}",
                remedy="strategy block needs one, such as [128, 128]; the others have none",
            )
        if block is not None and (len(block) != 2 or min(block) < 1):
            raise UserError(
                f"block_structure is {block}", remedy="give [rows, columns], both 1 or more"
            )

    def _check_observer(self) -> None:
        known = OBSERVERS.get(self.observer or "", ())
        for name, value in (self.observer_kwargs or {}).items():
            if name not in known:
                raise UserError(
                    f"observer_kwargs has {name!r} with observer {self.observer!r}",
                    remedy=f"this observer has {', '.join(known) or 'no options'}",
                )
            most = 1 if name in ("averaging_constant", "maxshrink") else 1000
            if not 0 < value <= most:
                raise UserError(
                    f"observer_kwargs.{name} is {value}", remedy=f"give more than 0, at most {most}"
                )

    def _check_scales(self) -> None:
        wanted = FLOAT_GROUPS.get(self.scale_dtype or "")
        if self.scale_rule is not None and (self.scale_dtype != "uint8" or self.dynamic):
            raise UserError(
                f"scale_rule is {self.scale_rule!r} for numbers whose scales are no stored powers "
                "of two",
                remedy="it is for the weights of MX formats: drop it, or say scheme=mxfp4 or mxfp8",
            )
        if wanted is not None and (self.strategy, self.group_size) != wanted:
            raise UserError(
                f"scale_dtype is {self.scale_dtype} with strategy {self.strategy!r} and "
                f"group_size {self.group_size}",
                remedy=f"such scales go with strategy {wanted[0]} and group_size {wanted[1]}",
            )
        if wanted is not None and self.type != "float":
            raise UserError(
                f"scale_dtype is {self.scale_dtype} for integers", remedy="drop scale_dtype"
            )
        if self.strategy == "tensor_group" and (self.num_bits, wanted) != (4, ("tensor_group", 16)):
            raise UserError(
                f"strategy tensor_group with {self.type} numbers of {self.num_bits} bits and "
                f"scale_dtype {self.scale_dtype}",
                remedy="it is for NVFP4: num_bits 4, type float, scale_dtype float8_e4m3fn",
            )
        if self.type == "float" and self.num_bits in (4, 6) and wanted is None:
            raise UserError(
                f"floats of {self.num_bits} bits without scale_dtype",
                remedy="say scale_dtype: float8_e4m3fn (NVFP4) or uint8 (MXFP4, MXFP6)",
            )

    @property
    def calibrated(self) -> bool:
        """Whether the scales depend on a range that calibration observes."""
        return self.dynamic is not True

    @property
    def statistic(self) -> str | None:
        """The statistic that calibration gathers for an input of this format; None for none."""
        if not self.calibrated:
            return None
        return "histogram" if self.observer == "mse" else "range"


def check_six_bits() -> None:
    """Raise UserError where the installed compressed-tensors has no six-bit floats."""
    installed = version(LIBRARY)
    if Version(installed) < SIX_BITS:
        raise UserError(
            f"floats of 6 bits (MXFP6) are not known to compressed-tensors {installed}",
            remedy=f"pip install '{LIBRARY}>={SIX_BITS}', or use scheme=mxfp8 or mxfp4",
        )


def member(what: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise UserError unless `value` is one of `allowed`."""
    # 1 == True: the type has to agree as well
    if not any(value == item and type(value) is type(item) for item in allowed):
        names = ", ".join("null" if item is None else str(item).lower() for item in allowed)
        raise UserError(f"{what} is {value!r}", remedy=f"choose one of {names}")

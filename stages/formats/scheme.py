"""What a scheme config can say: the number format of weights and activations, and where it goes.

Plain values without torch: `mode=plan` reads them with nothing else installed or loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import UserError

TYPES = ("int", "float")
WEIGHT_STRATEGIES = ("tensor", "channel", "group", "block", "tensor_group")
ACTIVATION_STRATEGIES = ("tensor", "token", "group", "tensor_group")
DYNAMIC = (False, True, "local")
SCALE_DTYPES = ("float8_e4m3fn", "uint8")
ZP_DTYPES = ("int8", "float8_e4m3fn", "uint8")
OBSERVERS = ("minmax", "static_minmax")
FORMATS = (
    "pack-quantized",
    "int-quantized",
    "float-quantized",
    "naive-quantized",
    "nvfp4-pack-quantized",
    "mxfp4-pack-quantized",
    "mxfp8-quantized",
)
GROUPED = ("group", "tensor_group")


@dataclass(frozen=True, kw_only=True, slots=True)
class QArgs:
    """How one tensor is quantized; the fields of compressed-tensors' QuantizationArgs.

    `dynamic` true computes scales on the fly; "local" does so for the group scales only and keeps a
    calibrated global scale (NVFP4 inputs). `observer` is for calibrated activations; the observer
    of weights belongs to the solver (`modifier.gptq.observer`).
    """

    num_bits: int = 8
    type: str = "int"
    symmetric: bool = True
    strategy: str = "tensor"
    group_size: int | None = None
    block_structure: list[int] | None = None
    dynamic: Any = False
    observer: str | None = None
    scale_dtype: str | None = None
    zp_dtype: str | None = None

    def __post_init__(self) -> None:
        _member("type", self.type, TYPES)
        _member("strategy", self.strategy, (*WEIGHT_STRATEGIES, "token"))
        _member("dynamic", self.dynamic, DYNAMIC)
        _member("scale_dtype", self.scale_dtype, (None, *SCALE_DTYPES))
        _member("zp_dtype", self.zp_dtype, (None, *ZP_DTYPES))
        _member("observer", self.observer, (None, *OBSERVERS))
        if self.type == "int" and not 2 <= self.num_bits <= 8:
            raise UserError(f"num_bits is {self.num_bits}", remedy="integers have 2 to 8 bits")
        if self.type == "float" and self.num_bits not in (4, 8):
            raise UserError(f"num_bits is {self.num_bits}", remedy="floats have 4 or 8 bits")
        if self.type == "float" and not self.symmetric:
            raise UserError(
                "symmetric is false for a float type", remedy="floats are symmetric: drop it"
            )
        self._check_shape()
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

    @property
    def calibrated(self) -> bool:
        """Whether a range of the data is needed before the scales are known."""
        return self.dynamic is not True


@dataclass(frozen=True, kw_only=True, slots=True)
class SchemeGroup:
    """One number format and the modules it is for.

    A target is a class name ("Linear"), a module's full name, or `re:` and a regular expression
    that matches from the start of the name. `format` is the layout on disk; None lets
    compressed-tensors choose.
    """

    weights: QArgs | None = None
    input_activations: QArgs | None = None
    format: str | None = None
    targets: list[str] = field(default_factory=lambda: ["Linear"])

    def __post_init__(self) -> None:
        check_group(self.weights, self.input_activations, self.format)
        check_patterns("targets", self.targets)


@dataclass(frozen=True, kw_only=True, slots=True)
class SchemeConfig:
    """The schema of `conf/scheme/*.yaml`: one format for `targets`, others in `groups`.

    For every module the first match counts: `groups` in their order, then the scheme's own
    `targets`. `ignore` wins over all of them.
    """

    weights: QArgs | None = None
    input_activations: QArgs | None = None
    format: str | None = None
    targets: list[str] = field(default_factory=lambda: ["Linear"])
    ignore: list[str] = field(default_factory=lambda: ["lm_head"])
    groups: dict[str, SchemeGroup] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_group(self.weights, self.input_activations, self.format)
        check_patterns("targets", self.targets)
        check_patterns("ignore", self.ignore)
        for name, group in self.groups.items():
            if group.weights is None:
                raise UserError(
                    f"scheme.groups.{name} has no weights",
                    remedy="name modules that stay as they are in scheme.ignore",
                )

    def ordered(self) -> Iterator[tuple[str, SchemeGroup]]:
        """The groups that quantize something, in the order in which they are matched."""
        yield from self.groups.items()
        if self.weights is not None:
            yield (
                "scheme",
                SchemeGroup(
                    weights=self.weights,
                    input_activations=self.input_activations,
                    format=self.format,
                    targets=self.targets,
                ),
            )


def check_group(weights: QArgs | None, inputs: QArgs | None, layout: str | None) -> None:
    """Raise UserError unless the parts of a group go together."""
    if weights is not None:
        _member("weights.strategy", weights.strategy, WEIGHT_STRATEGIES)
        if weights.dynamic is not False:
            raise UserError(
                f"weights.dynamic is {weights.dynamic!r}", remedy="weights are never dynamic"
            )
        if weights.observer is not None:
            raise UserError(
                f"weights.observer is {weights.observer!r}",
                remedy="the solver has it: modifier.<name>.observer",
            )
    if inputs is not None:
        _member("input_activations.strategy", inputs.strategy, ACTIVATION_STRATEGIES)
        if weights is None:
            raise UserError(
                "input_activations without weights", remedy="give scheme.weights as well"
            )
        if inputs.calibrated and inputs.strategy not in ("tensor", "tensor_group"):
            raise UserError(
                f"input_activations of strategy {inputs.strategy!r} are not dynamic",
                remedy="say dynamic: true, or strategy: tensor",
            )
        if inputs.strategy == "tensor_group" and inputs.dynamic != "local":
            raise UserError(
                f"input_activations.dynamic is {inputs.dynamic!r} with strategy tensor_group",
                remedy="say dynamic: local",
            )
    _check_format(weights, layout)


def _check_format(weights: QArgs | None, layout: str | None) -> None:
    _member("format", layout, (None, *FORMATS))
    if layout is None or weights is None:
        return
    fits = {
        "pack-quantized": weights.type == "int",
        "int-quantized": weights.type == "int",
        "float-quantized": weights.type == "float" and weights.num_bits == 8,
        "naive-quantized": weights.type == "int" or weights.num_bits == 8,
        "nvfp4-pack-quantized": weights.type == "float" and weights.group_size == 16,
        "mxfp4-pack-quantized": weights.type == "float" and weights.group_size == 32,
        "mxfp8-quantized": weights.type == "float" and weights.scale_dtype == "uint8",
    }
    if not fits[layout]:
        raise UserError(
            f"format {layout!r} cannot hold {weights.type} weights of {weights.num_bits} bits "
            f"with group_size {weights.group_size}",
            remedy="leave format out: the layout that fits is chosen",
        )


def check_patterns(what: str, patterns: list[str]) -> None:
    """Raise UserError for a `re:` pattern that is no regular expression."""
    for pattern in patterns:
        if pattern.startswith("re:"):
            try:
                re.compile(pattern[3:])
            except re.error as error:
                raise UserError(
                    f"{what} has {pattern!r}, which is no regular expression: {error}"
                ) from error


def _member(what: str, value: object, allowed: tuple[object, ...]) -> None:
    # 1 == True: the type has to agree as well
    if not any(value == item and type(value) is type(item) for item in allowed):
        names = ", ".join("null" if item is None else str(item).lower() for item in allowed)
        raise UserError(f"{what} is {value!r}", remedy=f"choose one of {names}")

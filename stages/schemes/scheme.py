"""Schema of a quantization scheme: number formats of weights and activations, and their targets.

Plain values without torch: `mode=plan` reads them without loading anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import UserError
from pipeline.registry import choices
from stages.schemes.patterns import check_patterns
from stages.schemes.quant_args import (
    ACTIVATION_STRATEGIES,
    STATE_STRATEGIES,
    WEIGHT_STRATEGIES,
    QArgs,
    member,
)

FORMATS = (
    "pack-quantized",
    "int-quantized",
    "float-quantized",
    "naive-quantized",
    "nvfp4-pack-quantized",
    "mxfp4-pack-quantized",
    "mxfp6-pack-quantized",
    "mxfp8-quantized",
)


MOST_GROUPS = 1000
"""Groups of a scheme, or of a checkpoint's quantization_config."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SchemeGroup:
    """One number format and the modules that get it.

    A target is a class name ("Linear"), a module's full name, or `re:` and a regular expression
    that matches from the start of the name. `format` is the layout on disk; None lets
    presswork choose it (`stages.schemes.layouts`).
    """

    weights: QArgs | None = None
    """How weights are quantized."""
    input_activations: QArgs | None = None
    """How the inputs of these modules are quantized; null leaves them as they are."""
    format: str | None = None
    targets: list[str] = field(default_factory=lambda: ["Linear"])
    """The modules it is for: class names, module names, or `re:` and an expression."""
    output_activations: Any = field(default=None, metadata={"key": False})
    """Always null: refused with its reason."""

    def __post_init__(self) -> None:
        check_outputs(self.output_activations)
        check_group(self.weights, self.input_activations, self.format)
        check_patterns("targets", self.targets)


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Size limit of the modules whose format is chosen, scales and zero points included.

    None: nothing is chosen (`mode=sensitivity` only measures).
    """

    bits_per_weight: float | None = None

    def __post_init__(self) -> None:
        if self.bits_per_weight is not None and not self.bits_per_weight > 0:
            raise UserError(
                f"bits_per_weight is {self.bits_per_weight}", remedy="give more than 0, such as 4.5"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SchemeConfig:
    """The schema of `conf/scheme/*.yaml`: one format for `targets`, others in `groups`.

    For every module the first match counts: `groups` in their order, then the scheme's own
    `targets`. `ignore` wins over all of them. `kv_cache` is the format of keys and values in the
    KV cache, `attention` that of the queries, keys and values that attention is given.

    With `candidates` the format of every module in `targets` is chosen under `budget`: among these
    names of `options`, integer groups in each of `group_sizes` (null: as they are). Of an option
    weights, inputs and format count. `solver` tries candidates in place of the run's own modifiers.
    The keys contain the formats that are chosen, not the way to them.
    """

    weights: QArgs | None = None
    """How weights are quantized; null leaves them as they are."""
    input_activations: QArgs | None = None
    """How inputs of the modules are quantized; null leaves them as they are."""
    format: str | None = None
    """The layout on disk; null lets presswork choose the one that fits."""
    targets: list[str] = field(default_factory=lambda: ["Linear"])
    """Modules of this format: classes such as Linear, names, or re:PATTERN."""
    ignore: list[str] = field(default_factory=lambda: ["lm_head"])
    """Modules that stay as they are, whatever else names them."""
    groups: dict[str, SchemeGroup] = field(default_factory=dict)
    """Other formats for some modules, by names of your own; the first that fits counts."""
    kv_cache: QArgs | None = None
    """The format of keys and values in the KV cache; null leaves them as they are."""
    attention: QArgs | None = None
    """The format of the queries, keys and values that attention is given; null: as they are."""
    budget: Budget | None = field(default=None, metadata={"key": False})
    candidates: list[str] = field(default_factory=list, metadata={"key": False})
    group_sizes: list[int] | None = field(default=None, metadata={"key": False})
    options: dict[str, SchemeConfig] = field(default_factory=dict, metadata={"key": False})
    solver: Any = field(default=None, metadata={"key": False, "component": "modifier"})
    output_activations: Any = field(default=None, metadata={"key": False})
    """Always null: refused with its reason."""

    def __post_init__(self) -> None:
        check_outputs(self.output_activations)
        check_group(self.weights, self.input_activations, self.format)
        check_states(self.kv_cache, self.attention)
        check_patterns("targets", self.targets)
        check_patterns("ignore", self.ignore)
        if len(self.groups) > MOST_GROUPS:
            raise UserError(
                f"scheme.groups has {len(self.groups)} groups",
                remedy=f"at most {MOST_GROUPS} are possible: one for each format will do",
            )
        for name, group in self.groups.items():
            if group.weights is None:
                raise UserError(
                    f"scheme.groups.{name} has no weights",
                    remedy="name modules that stay as they are in scheme.ignore",
                )
        check_candidates(self)

    def states(self) -> dict[str, QArgs]:
        """Quantization args of every quantized attention state (q, k, v)."""
        if self.attention is not None:
            return dict.fromkeys(("q", "k", "v"), self.attention)
        return {} if self.kv_cache is None else dict.fromkeys(("k", "v"), self.kv_cache)

    def ordered(self) -> Iterator[tuple[str, SchemeGroup]]:
        """The groups that quantize weights, in the order in which they are matched."""
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

    def formats(self) -> list[SchemeGroup]:
        """Every format that a module has or, where it is yet to be chosen, may get."""
        options = [self.options[name] for name in self.candidates]
        chosen = [option.alone() for option in options if option.weights]
        return [*(group for _, group in self.ordered()), *chosen]

    def alone(self) -> SchemeGroup:
        """The scheme's own format, as a candidate has it: for modules that are yet to be said."""
        inputs = self.input_activations
        return SchemeGroup(weights=self.weights, input_activations=inputs, format=self.format)


def check_outputs(outputs: object) -> None:
    """Raise UserError for `output_activations`, which other tools' schemes have."""
    if outputs is not None:
        raise UserError(
            "output_activations are not quantized: vLLM and SGLang compute outputs in the model's "
            "dtype whatever the checkpoint says of them, so that it would promise what nobody does",
            remedy="leave it out; for keys and values in the cache say kv_cache=fp8, for queries "
            "too attention=fp8",
        )


def check_group(weights: QArgs | None, inputs: QArgs | None, layout: str | None) -> None:
    """Raise UserError unless weights, inputs and layout of a group go together."""
    if weights is not None:
        member("weights.strategy", weights.strategy, WEIGHT_STRATEGIES)
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
        member("input_activations.strategy", inputs.strategy, ACTIVATION_STRATEGIES)
        if weights is None:
            raise UserError(
                "input_activations without weights", remedy="give scheme.weights as well"
            )
        if inputs.calibrated and inputs.strategy not in ("tensor", "tensor_group"):
            raise UserError(
                f"input_activations of strategy {inputs.strategy!r} are not dynamic",
                remedy="say dynamic: true, or strategy: tensor",
            )
        if inputs.strategy == "tensor_group" and inputs.observer not in (None, "static_minmax"):
            raise UserError(
                f"input_activations.observer is {inputs.observer!r} with strategy tensor_group",
                remedy="only static_minmax is defined for its global scale",
            )
        if inputs.strategy == "tensor_group" and inputs.dynamic != "local":
            raise UserError(
                f"input_activations.dynamic is {inputs.dynamic!r} with strategy tensor_group",
                remedy="say dynamic: local",
            )
    _check_format(weights, layout)


def check_states(cache: QArgs | None, attention: QArgs | None) -> None:
    """Raise UserError unless the formats of attention states can be calibrated."""
    if cache is not None and attention is not None:
        raise UserError(
            "scheme.kv_cache and scheme.attention are both given",
            remedy="leave one: attention quantizes keys and values as well",
        )
    for name, args in (("kv_cache", cache), ("attention", attention)):
        if args is None:
            continue
        member(f"{name}.strategy", args.strategy, STATE_STRATEGIES)
        dynamic = "local" if args.strategy == "tensor_group" else False
        if args.dynamic != dynamic:
            raise UserError(
                f"{name}.dynamic is {args.dynamic!r} with strategy {args.strategy!r}",
                remedy=f"say dynamic: {str(dynamic).lower()}",
            )
        if args.observer not in (None, "static_minmax"):
            raise UserError(
                f"{name}.observer is {args.observer!r}",
                remedy="the states' ranges are those of all tokens: leave it out",
            )


def check_candidates(scheme: SchemeConfig) -> None:
    """Raise UserError unless all candidates exist and have one format each."""
    if scheme.options and not scheme.candidates:
        raise UserError(
            "candidates is empty", remedy=f"choose from {', '.join(sorted(scheme.options))}"
        )
    if scheme.candidates and scheme.weights is not None:
        raise UserError(
            "scheme.weights and scheme.candidates are both given", remedy="leave one of them"
        )
    for name in scheme.candidates:
        if name not in scheme.options:
            raise UserError(
                f"candidates has {name!r}, which is not in scheme.options",
                remedy=f"{choices(name, scheme.options)}; or add a scheme of your own with "
                f"+scheme@scheme.options.{name}={name}",
            )
        option = scheme.options[name]
        if option.groups:
            raise UserError(
                f"candidates has {name!r}, a scheme with several formats",
                remedy="choose among schemes of one format (such as w4a16, or fp8_dynamic)",
            )
    for size in scheme.group_sizes or ():
        if size < 1:
            raise UserError(f"group_sizes has {size}", remedy="give positive sizes, such as 64")


def _check_format(weights: QArgs | None, layout: str | None) -> None:
    member("format", layout, (None, *FORMATS))
    if layout is None or weights is None:
        return
    fits = {
        "pack-quantized": weights.type == "int",
        "int-quantized": weights.type == "int",
        "float-quantized": weights.type == "float" and weights.num_bits == 8,
        "naive-quantized": weights.type == "int" or weights.num_bits == 8,
        "nvfp4-pack-quantized": weights.type == "float" and weights.group_size == 16,
        "mxfp4-pack-quantized": weights.type == "float" and weights.group_size == 32,
        "mxfp6-pack-quantized": weights.type == "float" and weights.num_bits == 6,
        "mxfp8-quantized": weights.type == "float" and weights.scale_dtype == "uint8",
    }
    if not fits[layout]:
        raise UserError(
            f"format {layout!r} cannot hold {weights.type} weights of {weights.num_bits} bits "
            f"with group_size {weights.group_size}",
            remedy="leave format out: the layout that fits is chosen",
        )

"""Planning a layer: its statistics, its part of the key, estimated size, memory and time.

A rotated model's Gram matrices follow from those of the unrotated one: with inputs x of a Linear
and x' = x M rotated, X'^T X' = M^T (X^T X) M. So one calibration serves every rotation. Magnitudes
and ranges do not follow: they are gathered on rotated inputs.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from typing import Any

from pipeline.errors import UserError
from pipeline.key import Json, canonical
from pipeline.registry import Registry, choices
from pipeline.stage import Estimate
from stages.compress.config import STATISTICS, CompressConfig, needed_statistics
from stages.compress.modifiers.base import Solver
from stages.compute import gpu_estimates as gpu
from stages.compute.estimates import COMPRESS_PROCESS, CORE_FLOPS
from stages.compute.work import NODE, PACK, PRODUCT, ROUND, added, factoring, solving
from stages.model.blueprint import Blueprint, LinearSpec, Subgraph
from stages.schemes.resolve import Resolved
from stages.schemes.sizes import layer_bytes
from stages.weights.row_bands import streaming_bytes

UNROTATED = "unrotated"
"""The input under which compression takes Gram matrices of the model before it was rotated."""
GRAM = ("gram",)


def statistics_problem(
    config: CompressConfig, facts: Mapping[str, Any], blueprint: Blueprint
) -> UserError | None:
    """What is wrong where statistics are needed that nobody gives, or that nobody can gather."""
    return _unknown(config) or _ungathered(config, facts, blueprint)


def _unknown(config: CompressConfig) -> UserError | None:
    """What is wrong with the statistics beyond the shipped ones that modifiers ask for."""
    asked = set(needed_statistics(config)).difference(STATISTICS)
    kinds = Registry.load().kinds("statistic") if asked else ()
    strange = sorted(asked.difference(kinds))
    solver = config.solver
    if not strange and config.transforms and solver and asked.intersection(solver.statistics()):
        return UserError(
            f"modifier {solver.kind} asks for {', '.join(sorted(asked))}, gathered before "
            f"{config.transforms[0].kind} changes the inputs",
            remedy="leave one of the two modifiers out",
        )
    if not strange:
        return None
    wants = [m.kind for m in config.modifiers if strange[0] in m.statistics()]
    return UserError(
        f"modifier {wants[0]} asks for the statistic {strange[0]!r}, which nobody gives",
        remedy=choices(strange[0], kinds),
    )


def _ungathered(
    config: CompressConfig, facts: Mapping[str, Any], blueprint: Blueprint
) -> UserError | None:
    if not needed_statistics(config):
        return None
    if "statistics" in facts and not blueprint.outlined:
        measured = facts["statistics"]
        problems = measured.get("problems", ()) if isinstance(measured, Mapping) else ()
        return next(iter(problems), None)
    wants = [f"modifier {m.kind}" for m in config.modifiers if m.statistics()]
    wants += [
        f"the calibrated input_activations of {name}"
        for name, group in config.scheme.ordered()
        if group.input_activations is not None and group.input_activations.calibrated
    ]
    why = blueprint.outlined or "nothing in this graph measures them"
    return UserError(
        f"statistics of activations are needed for {' and '.join(wants)}, but {why}",
        remedy="say modifier=rtn with observer minmax or mse, and a scheme without calibrated "
        "inputs (such as fp8_dynamic, w4a16, nvfp4a16); or graph=calibrated, for a model that "
        "transformers knows",
    )


def gram_is_all(config: CompressConfig) -> bool:
    """Whether a Gram matrix is all that anybody wants to know of a rotated model's activations.

    Otherwise (learned rounding, GPTQ aimed at the original's outputs, OWL's outliers, a quantized
    KV cache, formats chosen by error) its layers are run anyway, and its Gram matrices are gathered
    on the way.
    """
    scheme = config.scheme
    runs = config.runner or config.profile or scheme.states() or scheme.candidates
    return config.rotation is not None and needed_statistics(config) == GRAM and not runs


def follows(config: CompressConfig, facts: Mapping[str, Any]) -> bool:
    """Whether Gram matrices are made of unrotated ones, as the facts of a site's inputs allow.

    They do where every layer is fed by the original one: what a compressed layer hands on is
    another config's own.
    """
    measured = facts.get(UNROTATED)
    return gram_is_all(config) and isinstance(measured, Mapping) and bool(measured["unrotated"])


def formats_key(linears: Iterable[LinearSpec], formats: Mapping[str, Resolved]) -> Json:
    """Module -> its number format, of those that have one; which targets led to it is left out."""
    return {
        linear.name: canonical(formats[linear.name].scheme) | {"targets": []}
        for linear in linears
        if linear.name in formats
    }


def float16_revision(dtype: str) -> dict[str, Json]:
    """A part of the key of float16 models only, raised when results change for them alone.

    1, which was not said: refitted scales below float16's normal numbers did not fit their codes.
    """
    return {"float16": 2} if dtype == "float16" else {}


def solving_seconds(config: CompressConfig, linear: LinearSpec, *, solved: bool) -> float:
    """How long one weight takes: it is `solved` in the metric of its inputs, or only rounded.

    Transforms that search weigh each of their candidates by a product with the Gram matrix.
    """
    elements = linear.in_features * linear.out_features
    tries = sum(transform.tries for transform in config.transforms)
    if config.numerics.device != "cpu":
        seconds = gpu.solve_seconds(linear.out_features, linear.in_features) if solved else 0.0
        products = 2 * linear.in_features * elements / gpu.FLOAT32_FLOPS
        return seconds + gpu.ROUND_SECONDS * elements * (1 + tries) + tries * products
    passes = 12 * linear.in_features if solved else 200
    passes += tries * (2 * linear.in_features + 200)
    return passes * elements / (CORE_FLOPS * config.numerics.threads)


def stacks_of(part: Subgraph, formats: Container[str]) -> list[tuple[str, ...]]:
    """Quantized modules that are solved with one factor of their inputs: those that are fused."""
    first = {name: group[0] for group in part.fused for name in group}
    stacks: dict[str, list[str]] = {}
    for linear in part.linears:
        if linear.name in formats:
            stacks.setdefault(first.get(linear.name, linear.name), []).append(linear.name)
    return [tuple(stack) for stack in stacks.values()]


def layer_work(
    config: CompressConfig, part: Subgraph, formats: Container[str], *, solved: bool
) -> dict[str, float]:
    """Work of compressing `part`, by kind; `solved` in the metric of inputs, or only rounded.

    Transforms that search weigh each of their candidates by a product with the Gram matrix.
    """
    tries = sum(transform.tries for transform in config.transforms)
    by_name = {linear.name: linear for linear in part.linears}
    total: dict[str, float] = {NODE: 1.0}
    for stack in stacks_of(part, formats):
        rows, columns = (
            sum(by_name[name].out_features for name in stack),
            by_name[stack[0]].in_features,
        )
        elements = float(rows * columns)
        tried = {PRODUCT: 2 * tries * elements * columns, ROUND: tries * elements} if tries else {}
        chosen = added(solving(rows, columns), factoring(columns)) if solved else {ROUND: elements}
        total = added(total, tried, chosen, {PACK: elements})
    return total


def layer_estimate(
    config: CompressConfig,
    layer: Subgraph,
    formats: Mapping[str, Resolved],
    dtype: str,
    *,
    streams: bool,
) -> Estimate:
    """The cost of a decoder layer of a model in `dtype`.

    It `streams` where weights go from file to file one by one, rows of a large one at a time.
    """
    mine = {m.name: formats[m.name].scheme for m in layer.linears if m.name in formats}
    size = layer_bytes(layer, mine, dtype)
    widest, largest = 0, 0
    seconds = 0.5 if config.numerics.device == "cpu" else 0.0
    solved = any(isinstance(m, Solver) and m.statistics() for m in config.modifiers)
    for linear in layer.linears:
        if linear.name not in formats:
            continue
        elements = linear.in_features * linear.out_features
        seconds += solving_seconds(config, linear, solved=solved)
        widest, largest = max(widest, linear.in_features), max(largest, elements)
    if streams:
        memory = streaming_bytes(2 * largest)
    else:
        grams = 24 * widest * widest if needed_statistics(config) else 0
        memory = COMPRESS_PROCESS + 2 * layer.bytes + 4 * layer.parameters + grams
    cost = Estimate(
        bytes=size,
        memory=memory,
        seconds=seconds,
        work=layer_work(config, layer, formats, solved=solved),
        reads=layer.bytes,
    )
    return cost if config.numerics.device == "cpu" else on_gpu(cost, layer, formats, solved=solved)


def on_gpu(
    cost: Estimate, part: Subgraph, formats: Mapping[str, Resolved], *, solved: bool
) -> Estimate:
    """The cost of compressing `part` with the weights on a GPU that are solved together."""
    by_name = {linear.name: linear for linear in part.linears}
    stacks = [[by_name[name] for name in stack] for stack in stacks_of(part, formats)]
    shapes = [(sum(m.out_features for m in stack), stack[0].in_features) for stack in stacks]
    needs = [
        gpu.solve_memory(rows, columns) if solved else gpu.ROUND_BYTES * rows * columns
        for rows, columns in shapes
    ]
    return replace(
        cost,
        memory=COMPRESS_PROCESS + gpu.CUDA_PROCESS + 2 * part.bytes,
        seconds=cost.seconds + gpu.LAYER_SECONDS,
        device_memory=max(needs, default=0),
    )

"""Run `compress`: one decoder layer from its weights to its compressed shard."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from compressed_tensors.quantization import QuantizationScheme
from torch import Tensor

from pipeline.errors import StageFailed
from pipeline.stage import Task
from stages.compress.aimed.chains import Inputs
from stages.compress.aimed.solve_aimed import AimedLayer
from stages.compress.grid import Grid
from stages.compress.layer.state import LayerState
from stages.compress.layer.writer import KEPT, Compressed, distributions
from stages.compress.layer_inputs import layer_state, recipe_of, statistics_of
from stages.compress.learning.block import Activations
from stages.compress.learning.refine import refined
from stages.compress.modifiers.autoround import AutoRound
from stages.compress.modifiers.base import Modifier, Pruner, Solver, Transform
from stages.compress.modifiers.gptaq import Gptaq
from stages.compress.modifiers.keep_source import casts, kept_inputs, unusual
from stages.compress.modifiers.rtn import Rtn
from stages.compress.modifiers.rtn_route import only_rounds
from stages.compress.modifiers.sparsity import Sparsity
from stages.compress.parts.parts_run import PART, joined, narrowed
from stages.compress.rtn_streaming import record_direct, solve_direct
from stages.compress.shared_scales import global_scales, gram_of, grids_of, input_params, partners
from stages.compress.solve import Solved, solve_layer
from stages.compress.solvers.numerical_error import NumericalError
from stages.compress.solvers.rtn_fused import Direct
from stages.compute.loops import warn_of_slow_loops
from stages.formats.code_checksum import code_checksum
from stages.formats.compressed_tensors_bridge import to_compressed_tensors
from stages.formats.input_params import InputParams, InputRule
from stages.formats.pack import pack
from stages.model.artifact_names import OUTLIERS
from stages.model.blueprint import LinearSpec

if TYPE_CHECKING:
    from stages.compress.config import CompressConfig

Say = Callable[[str], None]
FEW = "fewer tokens than input channels were seen by"


def compress_layer(
    layer: LayerState,
    modifiers: Sequence[Modifier],
    *,
    device: str,
    progress: Callable[[float, str], None],
    warn: Say,
    activations: Activations | None = None,
    chains: Inputs | None = None,
) -> Compressed:
    """Transform, solve and pack all of `layer`, which is emptied on the way.

    activations: what the layer is run on, for a solver that learns; chains: for one that is aimed.
    Raises StageFailed for numerical trouble under the policy `error`, naming the module.
    """
    solver = next((m for m in modifiers if isinstance(m, Solver)), Rtn())
    warn_of_slow_loops(device, warn)
    for modifier in modifiers:
        if isinstance(modifier, Transform):
            progress(0.0, modifier.kind)
            modifier.rewrite(layer)
            layer.content = ()
    pruner = next((m for m in modifiers if isinstance(m, Pruner)), None)
    work = _Work(layer=layer, solver=solver, pruner=pruner, device=device, warn=warn)
    work.find_inputs()
    work.warn_of_few_tokens()
    scales = global_scales(layer, work.grids)
    total, dead = max(1, len(work.grids)), dict[str, int]()
    todo = {name: grid for name, grid in work.grids.items() if name not in work.skipped}
    straight = tuple(todo) if pruner is None and only_rounds((solver,), device) else ()
    for name, direct in solve_direct(layer, straight):
        work.put_direct(name, direct, solver.kind)
        del todo[name]
        progress(min(1.0, len(work.result.modules) / total), f"{solver.kind} {name}")
    aimed = work.aimed(todo, scales, chains)
    with closing(
        solve_layer(layer, solver, todo, scales, device=device, pruner=work.pruner)
        if aimed is None
        else aimed.solve()
    ) as solving:
        for solved in work.learned(solving, activations, aimed, progress):
            work.take(solved, scales)
            if solved.dead:
                dead[solved.module] = solved.dead
            done = len(work.result.modules) + len(work.skipped)
            progress(min(1.0, done / total), f"{solver.kind} {solved.module}")
    if work.unusual:
        name, kind = next(iter(work.unusual.items()))
        warn(f"the source's scales are kept, some of which are {kind}: {name}{_more(work.unusual)}")
    if work.cast:
        dtype = str(layer.dtype).removeprefix("torch.")
        warn(
            f"the source's float16 scales are kept: {work.cast[0]}{_more(work.cast)}; transformers "
            f"and vLLM cast them to the dtype that they load the model in, and round them by up to "
            f"0.4 % in {dtype}: load it in float16 or float32 for the source's numbers"
        )
    if dead:
        name, count = next(iter(dead.items()))
        warn(f"input channels that were zero for every token: {count} of {name}{_more(dead)}")
    if aimed is not None:
        work.tell(aimed)
    work.result.finish(layer, work.skipped)
    return work.result


@dataclass(kw_only=True, slots=True)
class _Work:
    layer: LayerState
    solver: Solver
    pruner: Pruner | None
    device: str
    warn: Say
    grids: dict[str, Grid] = field(init=False)
    schemes: dict[str, QuantizationScheme] = field(init=False)
    groups: dict[str, tuple[str, ...]] = field(init=False)
    inputs: dict[str, InputParams] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    unusual: dict[str, str] = field(default_factory=dict)
    cast: list[str] = field(default_factory=list)
    result: Compressed = field(default_factory=Compressed)

    def __post_init__(self) -> None:
        by_group = {
            resolved.group: to_compressed_tensors(resolved.scheme)
            for resolved in self.layer.resolved.values()
        }
        self.schemes = {n: by_group[r.group] for n, r in self.layer.resolved.items()}
        self.grids = grids_of(self.layer)
        self.groups = partners(self.layer)

    def find_inputs(self) -> None:
        """Calibrated parameters of every module's input, where its format has them."""
        for name in self.grids:
            inputs = self.layer.resolved[name].scheme.input_activations
            try:
                if self.solver.keeps:
                    self.inputs[name] = kept_inputs(self.layer, name, inputs)
                    continue
                self.inputs[name] = input_params(
                    self.layer.statistics,
                    self.groups[name],
                    inputs,
                    self.layer.dtype,
                )
            except NumericalError as error:
                if self.solver.on_failure != "skip":  # rounding the weight would not help here
                    raise _failed(error, name) from error
                self.skip(name, error)

    def learned(
        self,
        solving: Iterator[Solved],
        activations: Activations | None,
        aimed: AimedLayer | None,
        progress: Callable[[float, str], None],
    ) -> Iterable[Solved]:
        """The modules as they are solved; all at once where they learn together afterwards."""
        if activations is None or not isinstance(self.solver, AutoRound):
            return solving
        name = self.layer.subgraph.name
        solved, learned = refined(
            self.layer,
            self.solver,
            list(solving),
            self.grids,
            self.input_rules(),
            activations,
            partial(gram_of, self.layer.statistics) if aimed is None else aimed.gram,
            device=self.device,
            progress=lambda share: progress(share, f"{self.solver.kind} {name}"),
        )
        if learned is not None:
            self.result.learning.append(
                {
                    "layer": name,
                    "before": learned.before,
                    "after": learned.after,
                    "kept": learned.kept,
                    "iterations": learned.iterations,
                }
            )
        return solved

    def aimed(
        self, grids: Mapping[str, Grid], scales: Mapping[str, Tensor], chains: Inputs | None
    ) -> AimedLayer | None:
        """What solves the layer where it runs beside the original one."""
        if chains is None or not isinstance(self.solver, Gptaq | AutoRound):
            return None
        return AimedLayer(
            layer=self.layer,
            modifier=self.solver.aimed(),
            grids=grids,
            scales=scales,
            rules=self.input_rules(),
            inputs=chains,
            device=self.device,
            keeps_grams=self.solver.learns,
        )

    def tell(self, aimed: AimedLayer) -> None:
        """Take what an aimed layer has to tell."""
        name = self.layer.subgraph.name
        self.result.aimed += [{"layer": name, **row} for row in aimed.rows]
        if aimed.few:
            self.warn(f"{FEW} {aimed.few[0]}{_more(aimed.few)}")

    def input_rules(self) -> dict[str, InputRule]:
        """How the inputs of modules will be quantized, of those whose format says so."""
        rules = {}
        for name, params in self.inputs.items():
            args = self.schemes[name].input_activations
            if args is not None and name not in self.skipped:
                rules[name] = InputRule(args=args, params=params)
        return rules

    def warn_of_few_tokens(self) -> None:
        """One warning for all modules whose Gram matrix cannot have full rank."""
        if not any("gram" in m.statistics() for m in (self.solver, self.pruner) if m is not None):
            return
        few = [
            linear.name
            for linear in self.layer.subgraph.linears
            if linear.name in self.grids
            and 0 < self.layer.statistics.tokens(linear.name) < linear.in_features
        ]
        if few:
            self.warn(f"{FEW} {few[0]}{_more(few)}")

    def take(self, solved: Solved, scales: Mapping[str, Tensor]) -> None:
        """Pack a solved module, or deal with the trouble it made as the policy says."""
        name = solved.module
        if solved.batch:
            self.result.batches[name] = solved.batch
        if solved.trouble is None:
            self.put(solved, self.solver.kind)
        elif self.solver.on_failure == "fallback":
            grids = {name: self.grids[name]}
            again = list(
                solve_layer(
                    self.layer, Rtn(), grids, scales, device=self.device, pruner=self.pruner
                )
            )
            if again[0].trouble is not None:
                raise _failed(again[0].trouble, name)
            self.note(name, "rounded to nearest", solved.trouble)
            self.put(again[0], Rtn.kind, fallback=Rtn.kind)
        elif self.solver.on_failure == "skip":
            self.skip(name, solved.trouble)
        else:
            raise _failed(solved.trouble, name)

    def skip(self, name: str, error: NumericalError) -> None:
        """Leave a module as it is, and those that engines run together with it."""
        for other in self.groups[name]:
            if other in self.skipped:
                continue
            self.skipped[other] = error.reason
            self.note(other, "left unquantized", error)
            if other in self.result.modules:
                self.result.take_back(other)

    def note(self, name: str, action: str, error: NumericalError) -> None:
        self.result.fallbacks.append({"module": name, "action": action, "reason": error.reason})
        self.warn(f"{name} was {action}: {error.reason}")

    def put(self, solved: Solved, solver: str, fallback: str | None = None) -> None:
        """Pack one module into the result; its dense weight is kept until the layer is done."""
        name, quantized = solved.module, solved.quantized
        if name in self.skipped or quantized is None or quantized.codes is None:
            return
        if self.solver.keeps and (kind := unusual(quantized.scale)):
            self.unusual[name] = kind
        scheme, weights = self.schemes[name], self.layer.resolved[name].scheme.weights
        if self.solver.keeps and weights and casts(quantized.scale, weights, self.layer.dtype):
            self.cast.append(name)
        packed = pack(
            quantized.codes,
            scale=quantized.scale,
            zero_point=quantized.zero_point,
            global_scale=quantized.global_scale,
            inputs=self.inputs[name],
            scheme=scheme,
        )
        sums = code_checksum(
            quantized.codes,
            scale=quantized.scale,
            zero_point=quantized.zero_point,
            global_scale=quantized.global_scale,
            scheme=scheme,
            dtype=self.layer.dtype,
        )
        worse = [info["relative_error"] or 0.0 for info in self.result.modules.values()]
        worse = [error for error in worse if error > (solved.relative_error or 0.0)]
        if not self.solver.keeps and len(worse) < KEPT:  # more are never shown
            original = self.layer.peek(f"{name}.weight")
            self.result.distributions[name] = distributions(original, quantized.weight)
        self.result.record(
            self.spec(name),
            self.layer.resolved[name].scheme,
            {part: tensor.cpu() for part, tensor in packed.items()},
            sums,
            solver=solver,
            relative_error=solved.relative_error,
            fallback=fallback,
            zeros=None if self.pruner is None else float((quantized.weight == 0).float().mean()),
            negative_scales=self.solver.negates and bool((quantized.scale < 0).any()),
        )

    def put_direct(self, name: str, made: Direct, solver: str) -> None:
        """Take a module that came packed, together with the parameters of its input."""
        scheme, inputs = self.layer.resolved[name].scheme, self.inputs[name]
        given = {
            "input_scale": inputs.scale,
            "input_zero_point": inputs.zero_point,
            "input_global_scale": inputs.global_scale,
        }
        there = {part: tensor for part, tensor in given.items() if tensor is not None}
        spec = self.spec(name)
        record_direct(self.result, spec, scheme, made, solver=solver, inputs=there)

    def spec(self, name: str) -> LinearSpec:
        return next(linear for linear in self.layer.subgraph.linears if linear.name == name)


def _more(names: Collection[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _failed(error: NumericalError, module: str) -> StageFailed:
    return StageFailed(
        f"{module}: {error.reason}",
        remedy=f"{error.remedy}; or say what to do instead with modifier.<solver>.on_failure",
    )


def by_outliers(modifiers: Sequence[Modifier], task: Task) -> Sequence[Modifier]:
    """The modifiers with the layer's own share of zeros, where OWL says what that is."""
    if "outliers" not in task.inputs:
        return modifiers
    outliers = task.inputs["outliers"].json(OUTLIERS)["layers"]
    try:
        return [
            m.for_layer(task.member or "", outliers) if isinstance(m, Sparsity) else m
            for m in modifiers
        ]
    except ValueError as error:
        raise StageFailed(
            f"sparsity_profile=owl: {error}", remedy="give a smaller owl_lmbda"
        ) from error


def run(config: CompressConfig, task: Task) -> None:
    """Compress the layer `task.member` and write its shard."""
    config.numerics.apply()
    task.progress(0.0, "reading weights")
    layer, draft = layer_state(config, task), task.outputs["weights"]
    if (count := sum(name.startswith("parts/") for name in task.inputs)) and task.part is None:
        joined(layer, task, count).write(draft, layer.dtype)
        draft.meta["recipe"] = task.inputs["parts/0"].meta["recipe"]
        return
    if task.part is not None:
        layer = narrowed(layer, task.part)
    activations, chains = None, None
    if layer.resolved and layer.source is not None:
        if config.learner is not None:
            activations = Activations.of(task, layer.source, config.numerics.device)
        if config.aimer is not None:
            chains = Inputs.of(task, layer.source, config.numerics.device)
    made = compress_layer(
        layer,
        by_outliers(config.modifiers, task),
        device=config.numerics.device,
        progress=task.progress,
        warn=task.warn,
        activations=activations,
        chains=chains,
    )
    made.write(draft, layer.dtype)
    draft.meta["recipe"] = recipe_of(
        config, statistics_of(task.inputs), task.inputs.get("tokens") if config.aimer else None
    )
    if task.part is not None:  # what is told of the layer, its joining node tells
        linears = [linear.name for linear in layer.subgraph.linears]
        told = {"linears": linears, "batches": made.batches}
        draft.meta[PART] = {**draft.meta.pop("result"), **told}

"""Estimates of bytes, memory and time to calibrate or propagate one layer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.stage import Estimate, Site
from stages.compute import gpu_estimates as gpu
from stages.compute.estimates import FORWARD_FLOPS, MODEL_PROCESS
from stages.compute.work import FORWARD, NODE
from stages.compute.work import GRAM as GRAMS
from stages.model.artifact_names import ACTIVATIONS
from stages.model.blueprint import DTYPE_BYTES, Blueprint, Subgraph
from stages.model.compute_dtype import computed
from stages.model.layer_types import firsts_after_another
from stages.model.proofs.proof_input import boundary_width
from stages.model.routed_work import active_parameters, expert_share, routed_to

GRAM = "gram"
"""The only statistic that takes space."""
EXPERTS = "experts"
"""Stands for the one input that all experts of a layer see."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What runs through every layer: `rows` sequences of `width` tokens, `batch` at a time.

    `handed` is the number of values of each token that a layer hands on, `size` their bytes each.
    """

    rows: int
    width: int
    batch: int
    handed: int
    size: int

    def sequence(self, blueprint: Blueprint, layer: Subgraph, device: str) -> int:
        """What the forward of one sequence takes, with all of a boundary before and after it."""
        more = max(0, self.handed - blueprint.hidden_size) * self.width * self.size
        return sequence_bytes(blueprint, layer, self.width, device) + 2 * more


def estimates(
    site: Site, batch_size: int | None, *, grams: bool, device: str = "cpu"
) -> dict[str | None, Estimate]:
    """Bytes, memory and seconds by layer; empty while model, tokens or batch size are unknown.

    With `grams` also the next layer is counted where it is checked beside its own
    (:mod:`stages.calibrate.first_batch`).
    """
    blueprint, tokens = site.facts.get("model"), site.facts.get("tokens")
    if not isinstance(blueprint, Blueprint) or not isinstance(tokens, dict) or batch_size is None:
        return {}
    load = Load(
        rows=tokens["samples"],
        width=tokens["sequence_length"],
        batch=min(batch_size, tokens["samples"]),
        handed=boundary_width(site, blueprint),
        size=DTYPE_BYTES.get(computed(blueprint, device).dtype, 4),
    )
    checked = set(firsts_after_another(blueprint)) if grams else set()
    found: dict[str | None, Estimate] = {}
    for layer in blueprint.layers:
        cost = _estimate(blueprint, layer, load, grams)
        following = load.size * (
            blueprint.layers[layer.index + 1].parameters if layer.index + 1 in checked else 0
        )
        if device == "cpu":
            alone = MODEL_PROCESS + load.size * layer.parameters
            beside = alone + following + load.sequence(blueprint, layer, device)
            cost = replace(cost, memory=max(cost.memory, beside))
        else:
            cost = _on_gpu(cost, blueprint, layer, load, grams, device)
            beside = layer.bytes + following + load.sequence(blueprint, layer, device)
            cost = replace(cost, device_memory=max(cost.device_memory, beside))
        found[layer.name] = cost
    return found


def _estimate(blueprint: Blueprint, layer: Subgraph, load: Load, grams: bool) -> Estimate:
    tokens = load.rows * load.width
    activations = tokens * load.handed * load.size
    shared = _shared(layer)
    gram = sum(4 * n * n for n in shared.values()) if grams else 0
    working = load.batch * load.sequence(blueprint, layer, "cpu")
    work = _work(blueprint, layer, tokens, grams=grams)
    return Estimate(
        bytes=activations + gram,
        memory=MODEL_PROCESS + load.size * layer.parameters + gram + working,
        seconds=sum(work.get(kind, 0.0) for kind in (FORWARD, GRAMS)) / FORWARD_FLOPS,
        outputs={ACTIVATIONS: activations} | ({GRAM: gram} if grams else {}),
        work=work,
        reads=layer.bytes if grams else 0,
    )


def _work(blueprint: Blueprint, layer: Subgraph, tokens: int, *, grams: bool) -> dict[str, float]:
    """Work of a forward of a layer, and of the Gram matrices of its inputs.

    An expert runs on the tokens that are routed to it; in calibration on all of them, unless only
    those are to count (calibrate.experts=routed).
    """
    routed = routed_to(blueprint.config)
    everything = grams and blueprint.experts == "all"
    parameters = layer.parameters if everything else active_parameters(layer, routed)
    work = {FORWARD: 2.0 * parameters * tokens, NODE: 1.0}
    if grams:
        share = 1.0 if everything else expert_share(layer, routed)
        experts = {linear.name for linear in layer.linears if linear.expert}
        work[GRAMS] = float(
            sum(
                n * n * tokens * (share if name in experts or name == EXPERTS else 1.0)
                for name, n in _shared(layer).items()
            )
        )
    return work


def _on_gpu(
    cost: Estimate, blueprint: Blueprint, layer: Subgraph, load: Load, grams: bool, device: str
) -> Estimate:
    """The same on a GPU; activations between layers are not counted, for they may lie elsewhere."""
    shared = _shared(layer).values() if grams else ()
    fixed = layer.bytes + sum(4 * n * n for n in shared)
    each = load.sequence(blueprint, layer, device)
    return replace(
        cost,
        memory=MODEL_PROCESS + gpu.CUDA_PROCESS + layer.bytes,
        seconds=gpu.LAYER_SECONDS
        + cost.work[FORWARD] / gpu.FORWARD_FLOPS
        + cost.work.get(GRAMS, 0.0) / gpu.GRAM_OPERATIONS,
        device_memory=fixed + load.batch * each,
        remedy=gpu.smaller_batch(device, "calibrate.batch_size", load.batch, fixed, each),
    )


def sequence_bytes(blueprint: Blueprint, layer: Subgraph, width: int, device: str) -> int:
    """What the forward of one sequence of `width` tokens takes beside the layer's weights.

    A few hidden states, and the widest input: in float32 for its statistic on a CPU.
    """
    size = layer.bytes // max(1, layer.parameters)
    widest = max((linear.in_features for linear in layer.linears), default=0)
    wide = 4 * widest if device == "cpu" else 3 * size * widest
    return width * (6 * blueprint.hidden_size * size + wide)


def _shared(layer: Subgraph) -> dict[str, int]:
    """Input width of each statistic; fused Linears share one, and so do the experts of a layer."""
    first = {name: group[0] for group in layer.fused for name in group}
    return {
        EXPERTS
        if linear.expert and not linear.name.endswith("down_proj")
        else first.get(linear.name, linear.name): linear.in_features
        for linear in layer.linears
    }

"""Observe the attention states of a compressed layer, write their qparams, and apply them."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import StageFailed
from pipeline.stage import Artifact, Task
from stages.calibrate.cache import CacheConfig
from stages.calibrate.layer_replay import Place, filled, place_of
from stages.fake_quant.activations import simulated_inputs
from stages.fake_quant.attention_states import (
    StateRules,
    attention_prefixes,
    simulated_states,
    state_params,
)
from stages.formats.compressed_layer import CompressedLayer
from stages.formats.compressed_tensors_bridge import to_args
from stages.formats.layer_artifact import CACHE
from stages.model.artifact_names import ACTIVATIONS
from stages.model.attention_hooks import attention_modules, attention_states
from stages.model.boundary_activations import batches, read_activations
from stages.model.replay import replay
from stages.schemes.scheme import SchemeConfig


def run(config: CacheConfig, task: Task) -> None:
    """Write the qparams of every quantized state of the layer `task.member`."""
    config.numerics.apply()
    place = place_of(task, config.numerics.device)
    layer = CompressedLayer(task.inputs["weights"])
    wanted = config.scheme.states()
    limits: dict[tuple[str, str], Tensor] = {}
    valid: Tensor | None = None

    def seen(name: str, state: str, value: Tensor) -> Tensor:
        if state in wanted:
            found, before = heads_range(value, valid), limits.get((name, state))
            limits[name, state] = found if before is None else merged(before, found)
        return value

    with (
        filled(place, layer.weights),
        simulated_inputs(place.skeleton.model, layer.input_rules()),
        attention_states(place.skeleton, [place.subgraph.index], seen),
    ):
        for batch in batches(task.inputs["tokens"], config.calibrate.sequences):
            valid = None if batch.valid is None else batch.valid.to(place.device)
            before = task.inputs.get(ACTIVATIONS)
            given = None
            if before is not None:
                given = read_activations(before, batch, device=place.device)
            replay(place.skeleton, place.subgraph.index, batch.ids, given)
            task.progress((batch.index + 1) / batch.count, f"batch {batch.index + 1}")
    if not limits:
        raise StageFailed(
            f"no attention states of {place.subgraph.name} can be seen: it has no attention, or "
            "one that does not go through transformers' attention interface",
            remedy="leave kv_cache and attention out for this architecture",
        )
    prefixes = attention_prefixes([place.subgraph])
    dtype = getattr(torch, place.blueprint.dtype)
    tensors: dict[str, Tensor] = {}
    for (name, state), found in sorted(limits.items()):
        _check(name, state, found)
        params = state_params(state, found.cpu(), to_args(wanted[state]), dtype)
        tensors |= {f"{prefixes[name]}.{part}": tensor for part, tensor in params.items()}
    draft = task.outputs["scales"]
    save_file(tensors, draft.path / CACHE, metadata={"format": "pt"})
    names = sorted({name for name, _ in limits})
    draft.meta["modules"] = {name: prefixes[name] for name in names}
    modules = attention_modules(place.skeleton, [place.subgraph.index])
    draft.meta["kinds"] = sorted({type(modules[name]).__name__ for name in names})


def heads_range(value: Tensor, valid: Tensor | None) -> Tensor:
    """float32 [heads, 2]: minimum and maximum of `value` [b, heads, T, d] where `valid` [b, T]."""
    rows = value.float().transpose(1, 2)  # [b, T, heads, d]
    rows = rows.flatten(0, 1) if valid is None else rows[valid]
    return torch.stack((rows.amin(dim=(0, 2)), rows.amax(dim=(0, 2))), dim=1)


def merged(one: Tensor, other: Tensor) -> Tensor:
    """The range that covers both."""
    low, high = torch.minimum(one, other)[:, 0], torch.maximum(one, other)[:, 1]
    return torch.stack((low, high), dim=1)


def _check(name: str, state: str, limits: Tensor) -> None:
    if not bool(limits.isfinite().all()) or not bool((limits[:, 1] > limits[:, 0]).all()):
        raise StageFailed(
            f"{name}: the {state} states of some head are constant or not finite in calibration",
            remedy="calibrate with other text, or leave out kv_cache and attention",
        )


def rounded_states(
    place: Place, scheme: SchemeConfig, cache: Artifact | None
) -> AbstractContextManager[None]:
    """Context in which the layer's states are fake-quantized by the qparams of a `cache` result."""
    rules = StateRules()
    if cache is not None:
        tensors = load_file(cache.file(CACHE), device=place.device)
        params: dict[str, dict[str, Tensor]] = {}
        for name, prefix in cache.meta["modules"].items():
            params[name] = {
                key.removeprefix(f"{prefix}."): tensor
                for key, tensor in tensors.items()
                if key.rpartition(".")[0] == prefix
            }
        args = {state: to_args(args) for state, args in scheme.states().items()}
        rules = StateRules(args=args, params=params)
    return simulated_states(place.skeleton, [place.subgraph.index], rules)

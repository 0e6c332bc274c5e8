"""Propagating through a layer as it is stored, with its inputs as an engine sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stages.calibrate.cache import CacheConfig
from stages.calibrate.config import CalibrateConfig
from stages.calibrate.propagate import Propagate
from stages.compress.grid import grid_of
from stages.compress.observers import minmax
from stages.compress.solvers.rtn import rtn
from stages.formats.compressed_layer import CompressedLayer
from stages.formats.compressed_tensors_bridge import to_compressed_tensors
from stages.formats.input_params import InputParams
from stages.formats.layer_artifact import to_groups
from stages.formats.pack import pack
from stages.schemes.resolve import resolve
from stages.schemes.scheme import SchemeConfig
from tests.stages.calibrate.conftest import Scene
from tests.stages.calibrate.fakes import FakeArtifact, folder
from tests.stages.calibrate.oracle import tokens
from tests.stages.schemes.presets import load

Make = Callable[..., Scene]


def stored_layer(scene: Scene, index: int, scheme: SchemeConfig) -> FakeArtifact:
    """A result of `compress`: one layer rounded to nearest."""
    resolved = resolve(scheme, scene.blueprint).checked()
    layer = scene.blueprint.layers[index]
    tensors = {name: scene.model.source.tensors[name] for name in layer.tensors.values()}
    for linear in layer.linears:
        if linear.name not in resolved:
            continue
        args = to_compressed_tensors(resolved[linear.name].scheme)
        assert args.weights is not None
        weight = tensors.pop(f"{linear.prefix}.weight")
        result = rtn(weight, grid_of(args.weights), minmax.observe(weight, grid_of(args.weights)))
        assert result.codes is not None
        packed = pack(
            result.codes,
            scale=result.scale,
            zero_point=result.zero_point,
            global_scale=result.global_scale,
            inputs=InputParams(),
            scheme=args,
        )
        tensors |= {f"{linear.prefix}.{part}": value for part, value in packed.items()}
    artifact = folder(scene.worker.root / f"compressed{index}")
    save_file(tensors, artifact.file("shard.safetensors"))
    modules = {linear.name: {"prefix": linear.prefix} for linear in layer.linears}
    artifact.write_json(
        "layer.json",
        {
            "modules": {n: v for n, v in modules.items() if n in resolved},
            "dtype": "float32",
            "groups": to_groups(
                {x.prefix: resolved[x.name].scheme for x in layer.linears if x.name in resolved}
            ),
        },
    )
    return artifact


def propagate(scene: Scene, index: int, layer: FakeArtifact) -> list[Tensor]:
    stage = Propagate(CacheConfig(calibrate=CalibrateConfig(batch_size=2)))
    inputs = {**scene.inputs, "weights": layer}
    if index:
        inputs["activations"] = FakeArtifact(scene.worker.root / f"propagated{index - 1}")
    outputs = {"activations": f"propagated{index}"}
    task = scene.worker.task(scene.blueprint.members[index], inputs, outputs)
    stage.run(task)
    return read(task.outputs["activations"])


def read(draft: Any) -> list[Tensor]:
    return [load_file(path)["hidden"] for path in sorted(draft.path.iterdir())]


def nothing() -> SchemeConfig:
    """A scheme of which all modules are ignored."""
    scheme = load("w8a8")
    return SchemeConfig(weights=scheme.weights, ignore=["re:.*"])


@pytest.mark.parametrize("family", ["llama", "mixtral", "gemma2"])
def test_a_layer_that_was_left_as_it_is_gives_what_calibrate_gives(
    family: str, scene: Make
) -> None:
    made = scene(family)
    for index in range(2):
        wanted = read(made.calibrate(index, "activations")["activations"])
        mine = propagate(made, index, stored_layer(made, index, nothing()))
        assert all(torch.equal(a, b) for a, b in zip(mine, wanted, strict=True))


def by_token(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
    """INT8 inputs with one scale for each token, in plain torch."""
    del module
    scale = args[0].abs().amax(-1, keepdim=True) / 127.5
    return ((args[0] / scale).round().clamp(-128, 127) * scale,)


def test_weights_and_inputs_are_those_of_the_compressed_layer(scene: Make) -> None:
    made = scene("llama")
    layers = [stored_layer(made, index, load("w8a8")) for index in range(2)]
    mine = [propagate(made, index, layer) for index, layer in enumerate(layers)][-1]
    original, ids = made.model.original(), tokens(made)[0]
    states = []
    with torch.no_grad():
        states.append(original(ids, use_cache=False, output_hidden_states=True).hidden_states[2])
        for layer, artifact in zip(made.blueprint.layers, layers, strict=False):
            for linear in layer.linears:
                module = original.get_submodule(linear.name)
                weight = f"{linear.prefix}.weight"
                module.weight.data = CompressedLayer(artifact).weights.read([weight])[weight]
                module.register_forward_pre_hook(by_token)
        states.append(original(ids, use_cache=False, output_hidden_states=True).hidden_states[2])
    plain, wanted = states
    assert (torch.cat(mine) - wanted).norm() < 0.1 * (plain - wanted).norm()

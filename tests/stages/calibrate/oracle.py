"""What statistics should be: a plain hooked forward of transformers' own model, in float64."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.stages.calibrate.conftest import Scene


def tokens(scene: Scene) -> tuple[Tensor, Tensor]:
    """ids int64 [N, T] and bool [N, T] that is False for padding and for what does not count."""
    read = load_file(scene.inputs["tokens"].file("tokens.safetensors"))
    ids = read["input_ids"].long()
    valid = torch.arange(ids.shape[1])[None] < read["lengths"].long()[:, None]
    return ids, valid & read["counted"].bool() if "counted" in read else valid


def counted(scene: Scene, every: int = 3) -> None:
    """Let only some tokens of the scene count: `every` of them does not, nor any of the last row.

    Their activations are computed all the same.
    """
    path = scene.inputs["tokens"].file("tokens.safetensors")
    read = load_file(path)
    marks = torch.arange(read["input_ids"].shape[1]) % every != 1
    marks = marks.expand(read["input_ids"].shape).clone()
    marks[-1] = False
    save_file({**read, "counted": marks.to(torch.uint8)}, path)


def inputs_of(scene: Scene, layer: str) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Inputs [n, in] of all Linears of a layer without padding, in float64; all layers' outputs."""
    original = scene.model.original()
    seen: dict[str, list[Tensor]] = defaultdict(list)
    outputs: list[Tensor] = []
    ids, valid = tokens(scene)

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            rows = args[0].reshape(len(ids[:2]), -1, args[0].shape[-1])
            seen[name].append(rows[current].double())

        return hook

    for name, module in original.named_modules():
        if isinstance(module, nn.Linear) and name.startswith(f"{layer}."):
            module.register_forward_pre_hook(note(name))
        if name in scene.blueprint.members:
            module.register_forward_hook(lambda m, a, out: outputs.append(out))
    for start in range(0, len(ids), 2):
        part = ids[start : start + 2]
        current = valid[start : start + 2]
        if len(part) < 2:  # the hook wants full batches: repeat the row, count it once
            part = part.expand(2, -1)
            current = torch.cat((current, torch.zeros_like(current)))
        with torch.no_grad():
            original(part, use_cache=False)
    return {name: torch.cat(rows) for name, rows in seen.items()}, outputs

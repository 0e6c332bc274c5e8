"""AWQ's ratio by the Gram matrix of the inputs against the paper's loss, on a llama's own layers.

    python -m tests.benchmarks.awq_losses --model DIR --text wiki.valid.raw [--every 3]

The paper (arXiv:2306.00978) tries a ratio by a forward of the module around the Linears: attention
for q, k and v, the gated MLP for gate and up. presswork sums the output errors of the Linears
themselves, which the Gram matrix gives without any forward. Both get the same candidates here, and
the same tokens of the text's first half. Printed: how often both choose the same ratio, what our
choice costs by the paper's loss over its own best, and what that best saves of the loss without
factors. For v -> o and up -> down the module around is the Linear: there is no difference.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tests.benchmarks.tokens import halves, windows

if TYPE_CHECKING:
    from torch import Tensor

    from stages.compress.grid import Grid


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """Both losses of every candidate for one norm; the first is without factors."""

    name: str
    ours: Sequence[float]
    paper: Sequence[float]

    @property
    def chosen(self) -> int:
        return min(range(len(self.ours)), key=self.ours.__getitem__)

    @property
    def best(self) -> int:
        return min(range(len(self.paper)), key=self.paper.__getitem__)


def summary(tried: Sequence[Tried]) -> dict[str, float]:
    """Means over the norms; losses relative to the one without factors."""
    at_chosen = [each.paper[each.chosen] / each.paper[0] for each in tried]
    at_best = [each.paper[each.best] / each.paper[0] for each in tried]
    return {
        "norms": len(tried),
        "same choice": fmean(each.chosen == each.best for each in tried),
        "at most one step apart": fmean(abs(each.chosen - each.best) <= 1 for each in tried),
        "paper's loss at our choice": fmean(at_chosen),
        "paper's loss at its best": fmean(at_best),
    }


def grid(group_size: int) -> Grid:
    """Symmetric 4-bit integers in groups."""
    from compressed_tensors.quantization import QuantizationArgs

    from stages.compress.grid import grid_of

    kind = QuantizationArgs(
        num_bits=4, type="int", symmetric=True, strategy="group", group_size=group_size
    )
    return grid_of(kind)


def candidates(mean: Tensor, weights: Sequence[Tensor], width: int) -> list[Tensor]:
    """Factors by channel: none, and those of 20 ratios with `duo_scaling`."""
    import torch

    from stages.compress.transforms.awq import awq_scales, ratios, weight_magnitudes

    rows = sum(len(w) for w in weights)
    magnitude = sum(weight_magnitudes(w, width) for w in weights) / rows
    found = [awq_scales(mean, magnitude, r, duo_scaling=True) for r in ratios(20)]
    return [torch.ones_like(mean), *found]


def rounded(weight: Tensor, s: Tensor, chosen: Grid) -> Tensor:
    """Q(W s) / s by min-max scales."""
    from stages.compress.observers.catalog import OBSERVERS
    from stages.compress.solvers.rtn import rtn

    scaled = weight * s
    return rtn(scaled, chosen, OBSERVERS["minmax"](scaled, chosen)).weight / s


def tried(
    name: str, linears: Sequence[Any], x: Tensor, around: Callable[[], Tensor], g: Grid
) -> Tried:
    """Both losses for Linears that read x [n, in]; `around` runs the module on the same tokens."""
    originals = [linear.weight.detach().clone() for linear in linears]
    G, wanted = (x.double().T @ x.double()), around()
    ours, paper = [], []
    for s in candidates(x.abs().mean(dim=0), originals, g.width(x.shape[1])):
        total = 0.0
        for linear, weight in zip(linears, originals, strict=True):
            value = rounded(weight, s, g)
            error = (weight - value).double()
            total += float((error @ G * error).sum())
            linear.weight.copy_(value)
        ours.append(total)
        paper.append(float((around() - wanted).double().square().mean()))
        for linear, weight in zip(linears, originals, strict=True):
            linear.weight.copy_(weight)
    return Tried(name=name, ours=ours, paper=paper)


def measure(model: Any, ids: Tensor, group_size: int, every: int) -> list[Tried]:
    """Every n-th layer's two norms, on the original model's own inputs."""
    import torch

    found: list[Tried] = []
    g = grid(group_size)
    with torch.no_grad():
        for index in range(0, len(model.model.layers), every):
            layer = model.model.layers[index]
            attention, mlp = layer.self_attn, layer.mlp
            readers = [attention.q_proj, attention.k_proj, attention.v_proj]
            x, around = _seen(model, ids, attention)
            found.append(tried(f"{index} attention", readers, x, lambda a=around: a()[0], g))
            x, around = _seen(model, ids, mlp)
            found.append(tried(f"{index} mlp", [mlp.gate_proj, mlp.up_proj], x, around, g))
    return found


def _seen(model: Any, ids: Tensor, module: Any) -> tuple[Tensor, Callable[[], Any]]:
    """What a module reads, [n, in], and a call of it with the same arguments."""
    calls: list[tuple[Any, Any]] = []
    hook = module.register_forward_pre_hook(
        lambda _, args, options: calls.append((args, options)), with_kwargs=True
    )
    model.model(input_ids=ids, use_cache=False)
    hook.remove()
    ((args, options),) = calls
    hidden: Tensor = args[0] if args else options["hidden_states"]
    return hidden.flatten(0, 1), lambda: module(*args, **options)


def main() -> int:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--every", type=int, default=1, help="take each n-th layer")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    ids = windows(tokenizer, halves(args.text)[0], args.length, args.samples)
    found = measure(model, ids, args.group_size, args.every)
    for part in ("attention", "mlp"):
        own = [each for each in found if each.name.endswith(part)]
        sys.stdout.write(json.dumps({"around": part, **summary(own)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

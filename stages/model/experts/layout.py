"""Layout of fused expert weights, and the part of each Linear in them. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stages.model.experts.cut import Cut

GATE_UP, GATE, UP, DOWN = "gate_up_proj", "gate_proj", "up_proj", "down_proj"
ROUTED, SCORED, SORTED = 3, 2, 1
"""Arguments of a container's forward: tokens, indices and weights; tokens and the router's logits;
or tokens sorted by expert."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Sizes and layout of one container's fused parameters.

    Weights are [experts, out, in], or [experts, in, out] if `transposed`; the rows of gate and up
    are two halves, or alternate if `interleaved`. `bias`: every expert's Linears have one.
    `identities`: experts past the last one hand their input on. `arguments` is ROUTED, SCORED or
    SORTED. `names` maps parameters that are called otherwise, or lie in a submodule, to the names
    used here, `turned` has those of these names whose matrices are the other way round than
    `transposed` says; `flat`: a parameter has the experts' matrices one below the other.
    """

    experts: int
    hidden: int
    intermediate: int
    gate: bool
    bias: bool
    transposed: bool
    interleaved: bool
    identities: bool
    arguments: int
    names: Mapping[str, str] = field(default_factory=dict)
    turned: frozenset[str] = frozenset()
    flat: bool = False

    @property
    def linears(self) -> tuple[str, ...]:
        """Linears of one expert, in the order in which they are called."""
        return (GATE, UP, DOWN) if self.gate else (UP, DOWN)

    def parameters(self) -> dict[str, tuple[str, ...]]:
        """Fused weight -> the Linears whose rows it holds."""
        if GATE in self.names.values():
            return {linear: (linear,) for linear in self.linears}
        return {GATE_UP: (GATE, UP), DOWN: (DOWN,)} if self.gate else {UP: (UP,), DOWN: (DOWN,)}

    def cuts(self, target: str, stored: str, operations: tuple[str, ...]) -> dict[str, Cut]:
        """Parameter of the patch -> part of the checkpoint tensor `stored` that holds it.

        transformers would make the fused parameter `target` of it by `operations`. Empty if they
        are unknown ones.
        """
        target = self.names.get(target, target)
        weight, bias = target.removesuffix("_bias"), target.endswith("_bias")
        linears = self.parameters().get(weight, ())
        turned = self.transposed != (weight in self.turned)
        transposed = (turned != (operations == ("Transpose",))) and not bias
        if operations == ("Interleave",):
            interleaved = True
        elif operations in ((), ("Transpose",)):
            interleaved = self.interleaved
        else:
            return {}
        found: dict[str, Cut] = {}
        for expert in range(self.experts):
            for place, linear in enumerate(linears):
                start, stop, step = self._rows(len(linears), place, interleaved)
                found[f"{expert}.{linear}.{'bias' if bias else 'weight'}"] = Cut(
                    stored=stored,
                    index=expert,
                    start=start,
                    stop=stop,
                    step=step,
                    transposed=transposed,
                    blocks=self.experts if self.flat else 0,
                )
        return found

    def whole(self, linear: str, stored: str) -> dict[str, Cut]:
        """Parameter of the patch -> its matrix of a tensor that holds one Linear of all experts."""
        return {
            f"{expert}.{linear}.weight": Cut(
                stored=stored, index=expert, transposed=self.transposed
            )
            for expert in range(self.experts)
        }

    def _rows(self, count: int, place: int, interleaved: bool) -> tuple[int, int | None, int]:
        if count == 1:
            return 0, None, 1
        if interleaved:
            return place, None, count
        return place * self.intermediate, (place + 1) * self.intermediate, 1


def transposed_of(
    first: tuple[int, ...], down: tuple[int, ...], parts: int, said: bool | None = None
) -> bool | None:
    """Whether weights are [experts, in, out]; None where the shapes fit neither or both ways.

    `first` is the shape of gate and up together (`parts` 2) or of up alone, `down` that of down;
    `said` is what the container's class says.
    """
    fits = []
    if (first[1], first[2]) == (parts * down[2], down[1]):
        fits.append(False)
    if (first[2], first[1]) == (parts * down[1], down[2]):
        fits.append(True)
    if said is not None:
        return said if said in fits else None
    return fits[0] if len(fits) == 1 else None

"""Layout of fused expert weights, and the part of each Linear in them. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from stages.model.experts.cut import Cut

GATE_UP, GATE, UP, DOWN = "gate_up_proj", "gate_proj", "up_proj", "down_proj"
ROUTED, SORTED = 3, 1
"""Arguments of a container's forward: tokens, indices and weights; or tokens sorted by expert."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Sizes and layout of one container's fused parameters.

    Weights are [experts, out, in], or [experts, in, out] if `transposed`; the rows of gate and up
    are two halves, or alternate if `interleaved`. `bias`: every expert's Linears have one.
    `identities`: experts past the last one hand their input on. `arguments` is ROUTED or SORTED.
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

    @property
    def linears(self) -> tuple[str, ...]:
        """Linears of one expert, in the order in which they are called."""
        return (GATE, UP, DOWN) if self.gate else (UP, DOWN)

    def parameters(self) -> dict[str, tuple[str, ...]]:
        """Fused weight -> the Linears whose rows it holds."""
        return {GATE_UP: (GATE, UP), DOWN: (DOWN,)} if self.gate else {UP: (UP,), DOWN: (DOWN,)}

    def cuts(self, target: str, stored: str, operations: tuple[str, ...]) -> dict[str, Cut]:
        """Parameter of the patch -> part of the checkpoint tensor `stored` that holds it.

        transformers would make the fused parameter `target` of it by `operations`. Empty if they
        are unknown ones.
        """
        weight, bias = target.removesuffix("_bias"), target.endswith("_bias")
        linears = self.parameters().get(weight, ())
        transposed = (self.transposed != (operations == ("Transpose",))) and not bias
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

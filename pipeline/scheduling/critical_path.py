"""Critical path of a plan: the chain of nodes that no number of workers makes shorter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.planning.plan import Plan, Step


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """The nodes of one site on a critical path: names such as `solve[4]` or `measure x 61`."""

    name: str
    seconds: float


def critical_path(plan: Plan, seconds: Callable[[Step], float]) -> tuple[str, ...]:
    """Names of the nodes of the longest chain by the time of its nodes, first to last."""
    ends: dict[str, float] = {}
    before: dict[str, str | None] = {}
    for name, step in plan.steps.items():
        if step.status != "build":
            continue
        feeding = [ref.node for ref in step.node.inputs.values() if ref.node in ends]
        last = max(feeding, key=lambda each: ends[each], default=None)
        before[name] = last
        ends[name] = seconds(step) + (0.0 if last is None else ends[last])
    path, at = list[str](), max(ends, key=lambda each: ends[each], default=None)
    while at is not None:
        path.append(at)
        at = before[at]
    return tuple(reversed(path))


def stretches(
    plan: Plan, path: tuple[str, ...], seconds: Callable[[Step], float]
) -> tuple[Stretch, ...]:
    """A path with the nodes of each site together, in the order in which sites come first."""
    by_site: dict[str, list[str]] = {}
    for name in path:
        by_site.setdefault(plan.steps[name].node.site, []).append(name)
    return tuple(
        Stretch(
            name=names[0] if len(names) == 1 else f"{site} x {len(names)}",
            seconds=sum(seconds(plan.steps[name]) for name in names),
        )
        for site, names in by_site.items()
    )

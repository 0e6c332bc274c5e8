"""Small graphs for tests: nodes from a one-line description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.graph import Node, Ref


def node(
    name: str,
    inputs: Mapping[str, str] | None = None,
    *,
    outputs: tuple[str, ...] = ("out",),
    index: int | None = None,
    version: int = 1,
    **params: Any,
) -> Node:
    """A node; `inputs` maps input names to "node" or "node.output"."""
    refs = {}
    for label, text in (inputs or {}).items():
        source, _, output = text.partition(".")
        refs[label] = Ref(node=source, output=output or "out")
    return Node(
        name=name,
        site=name.partition("[")[0],
        kind=name.partition("[")[0],
        version=version,
        params=params,
        inputs=refs,
        outputs=outputs,
        index=index,
    )


def chain(layers: int) -> list[Node]:
    """load -> calibrate[k] -> compress[k] -> propagate[k] -> calibrate[k+1] ... -> save."""
    nodes = [node("load")]
    for k in range(layers):
        fed = {"activations": f"propagate[{k - 1}].activations"} if k else {}
        nodes += [
            node(
                f"calibrate[{k}]",
                {"source": "load"} | fed,
                outputs=("activations", "gram"),
                index=k,
                layer=k,
            ),
            node(f"compress[{k}]", {"gram": f"calibrate[{k}].gram"}, index=k, layer=k),
            node(
                f"propagate[{k}]",
                {"weights": f"compress[{k}]"} | fed,
                outputs=("activations",),
                index=k,
                layer=k,
            ),
        ]
    nodes.append(node("save", {f"layers/{k}": f"compress[{k}]" for k in range(layers)}))
    return nodes

"""Nodes that are built in parts: a node for each part, and one that joins them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipeline.graph import Node, Ref
from pipeline.stage import Estimate, Parts

PARTS = ".parts"
"""What follows the name of a site in that of the nodes of its parts."""


def in_parts(nodes: Iterable[Node], parts: Parts) -> Iterator[Node]:
    """The nodes of a site, those that are built in parts with the nodes of their parts before them.

    A joining node keeps the name, so that what reads it reads it as before; its key is another.
    """
    for node in nodes:
        names = parts.names.get(node.member, ())
        if not names:
            yield node
            continue
        made = [_part(node, number, name, parts) for number, name in enumerate(names)]
        yield from made
        labels = {
            (f"parts/{number}" if len(node.outputs) == 1 else f"parts/{number}.{output}"): Ref(
                node=part.name, output=output
            )
            for number, part in enumerate(made)
            for output in node.outputs
        }
        own = {
            label: ref
            for label, ref in node.inputs.items()
            if label.partition(".")[0].partition("/")[0] in parts.joining
        }
        yield replace(node, inputs={**own, **labels})


def _part(node: Node, number: int, name: str, parts: Parts) -> Node:
    site = f"{node.site}{PARTS}"
    config = parts.semantics.get((node.member, name), node.params.get("config"))
    place = number if node.index is None else f"{node.index}.{number}"
    return replace(
        node,
        name=f"{site}[{place}]",
        site=site,
        params={**node.params, "config": config, "part": name},
        part=name,
        estimate=parts.estimates.get((node.member, name), Estimate()),
    )

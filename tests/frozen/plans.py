"""The keys that a config gives the nodes of its graph: all that these tests know of the framework.

Versions of installed libraries are masked, for they are part of a key and differ by machine.
"""

from __future__ import annotations

from dataclasses import replace

from omegaconf import DictConfig

from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.graph import Graph, Node, Ref
from pipeline.planning.expand import expand
from pipeline.registry import Registry
from tests.pipeline.tiny import composed

Keys = dict[str, dict[str, str]]
"""Node -> output -> key, each node after those that it is fed by."""


CONFIGS = own_configs()
"""The folder conf."""


def compose(*words: str) -> DictConfig:
    """The config that these overrides of the command line make."""
    return composed(CONFIGS, *words, name="config")


def keys_of(cfg: DictConfig) -> Keys:
    """The keys that `mode=plan` gives on an empty store, as if every library had one version."""
    config = load_config(cfg, Registry.load())
    graph = expand(config.graph.sites, mode="plan", find=lambda key: None, build=_never).graph
    masked = Graph.of(map(_masked, graph.nodes.values()), graph.targets)
    return {
        name: {o: masked.keys[Ref(node=name, output=o)] for o in node.outputs}
        for name, node in masked.nodes.items()
    }


def _masked(node: Node) -> Node:
    libraries = dict.fromkeys(node.params["libraries"], "masked")
    return replace(node, params={**node.params, "libraries": libraries})


def _never(graph: Graph, ref: Ref) -> None:
    raise AssertionError(f"a plan asked to build {ref}")

"""The work of a compress node: a layer is read, compressed and written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.stage import Task
from stages.compress.layer import compress_layer
from stages.compress.reading import layer_state, recipe_of, statistics_of

if TYPE_CHECKING:
    from stages.compress.stage import CompressConfig


def run(config: CompressConfig, task: Task) -> None:
    """Compress the layer `task.member` and write its shard."""
    config.numerics.apply()
    task.progress(0.0, "reading weights")
    layer, draft = layer_state(config, task), task.outputs["weights"]
    made = compress_layer(
        layer,
        config.modifiers,
        device=config.numerics.device,
        progress=task.progress,
        warn=task.warn,
    )
    made.write(draft, layer.dtype)
    draft.meta["recipe"] = recipe_of(config, statistics_of(task.inputs))

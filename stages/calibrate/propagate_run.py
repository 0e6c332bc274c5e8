"""Run `propagate`: the output of one layer with its decompressed weights and quantized inputs."""

from __future__ import annotations

from pipeline.stage import Task
from stages.calibrate.cache import CacheConfig
from stages.calibrate.cache_run import rounded_states
from stages.calibrate.layer_replay import filled, place_of, run_layer
from stages.fake_quant.activations import simulated_inputs
from stages.formats.compressed_layer import CompressedLayer


def run(config: CacheConfig, task: Task) -> None:
    """Write the activations after the compressed layer `task.member`."""
    config.numerics.apply()
    place = place_of(task, config.numerics.device)
    layer = CompressedLayer(task.inputs["weights"])
    with (
        filled(place, layer.weights),
        simulated_inputs(place.skeleton.model, layer.input_rules()),
        rounded_states(place, config.scheme, task.inputs.get("cache")),
    ):
        run_layer(task, place, config.calibrate.sequences, None)

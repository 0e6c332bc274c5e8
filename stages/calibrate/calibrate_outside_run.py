"""Run the model's end on calibration tokens, and gather statistics of the lm_head's inputs."""

from __future__ import annotations

from pipeline.stage import Task
from stages.calibrate.config import LayerConfig
from stages.calibrate.input_hooks import Collector
from stages.calibrate.run import statistics_of, write_statistics
from stages.model.artifact_names import ACTIVATIONS
from stages.model.blueprint import Blueprint
from stages.model.boundary_activations import batches, read_activations
from stages.model.compute_dtype import computed
from stages.model.ending import tail_names
from stages.model.layer_tensors import outside_tensors
from stages.model.replay import final_hidden
from stages.model.skeleton import skeleton
from stages.quantized.open import open_model


def run(config: LayerConfig, task: Task) -> None:
    """Write the statistics of the lm_head's inputs; one batch of activations is in memory."""
    config.numerics.apply()
    device = config.numerics.device
    blueprint = computed(Blueprint.load(task.inputs["model"]), device)
    bones = skeleton(blueprint, device=device)
    statistics = statistics_of(task.outputs)
    collector = Collector(names=[blueprint.head], statistics=statistics, device=device)
    source = open_model(task.inputs["source"], blueprint)
    tail = outside_tensors(blueprint, tail_names(bones, head=False), source, device=device)
    before = task.inputs[ACTIVATIONS]
    with bones.materialized(tail):
        for batch in batches(task.inputs["tokens"], config.calibrate.sequences):
            given = read_activations(before, batch, device=device)
            final = final_hidden(bones, batch.ids, given)
            valid = None if batch.counted is None else batch.counted.to(device)
            with collector.forward(valid):
                collector.see(blueprint.head, final)
            done = batch.index + 1
            task.progress(done / batch.count, f"batch {done} of {batch.count}")
    write_statistics(task.outputs, collector.collected(), task.inputs["tokens"].meta, {})

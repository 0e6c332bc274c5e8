"""Open the weights of a `load` result, dense or quantized, safetensors or GGUF."""

from __future__ import annotations

from pipeline.stage import Artifact, Upcoming
from stages.model.blueprint import Blueprint
from stages.model.rotations.rotated_source import RotatedSource
from stages.model.structure.selected_source import SelectedSource, Selection
from stages.quantized.catalog import opened
from stages.quantized.turned_source import TurnedSource
from stages.weights.aliased_source import Aliased
from stages.weights.checkpoint_files import Layout
from stages.weights.cut_source import CutSource
from stages.weights.joined_source import JoinedSource
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.source import WeightSource
from stages.weights.source_manifest import SourceManifest


def open_source(artifact: Artifact) -> WeightSource:
    """The weights of a `load` or `reap` result; quantized ones read like dense ones.

    Raises UserError if a file has changed or vanished since, and its content is nowhere else.
    """
    manifest = SourceManifest.load(artifact)
    source = _of_files(artifact, manifest)
    if "selection" not in manifest.settings:
        return source
    return SelectedSource(source, Selection.from_json(manifest.settings["selection"]))


def _of_files(artifact: Artifact, manifest: SourceManifest) -> WeightSource:
    files = {file.name: file.locate(artifact.path) for file in manifest.files}
    if manifest.kind == "gguf":
        from stages.quantized.gguf import QuantizedGguf
        from stages.weights.gguf_source import GgufSource

        return QuantizedGguf(GgufSource.of(next(iter(files.values())), manifest))
    layout = Layout(
        where=manifest.identity,
        files={name: file.path for name, file in files.items()},
        tensors=manifest.tensors,
        pinned=files,
    )
    stored = SafetensorsSource(layout)
    if "quantization" not in manifest.settings:
        return stored
    return opened(stored, manifest.settings["quantization"], manifest.settings["dtype"])


def open_model(artifact: Artifact, blueprint: Blueprint) -> WeightSource:
    """The weights of a `load` result under the names of its blueprint.

    Experts that are fused on disk read as one tensor for each of their Linears; what the disk has
    in pieces reads as one, and what it has as [in, out] as [out, in]. A rotated model's tensors are
    rotated as they are read.
    """
    source = open_source(artifact)
    if blueprint.turned:
        source = TurnedSource(source, blueprint.turned)
    if blueprint.joins:
        source = JoinedSource(source, blueprint.joins)
    if blueprint.cuts:
        source = CutSource(source, blueprint.cuts)
    if blueprint.rotation is None:
        return source
    return RotatedSource(Aliased(source, blueprint.rotation.aliases), blueprint.rotation)


def read_ahead(upcoming: Upcoming) -> int:
    """Ask the system to read the weights of an upcoming decoder layer; gives their bytes.

    Only from safetensors files of plain weights: others are not read by the tensor.
    """
    model, stored = upcoming.inputs.get("model"), upcoming.inputs.get("source")
    if model is None or stored is None or upcoming.member is None:
        return 0
    blueprint = upcoming.resource(f"blueprint/{model.key}", lambda: Blueprint.load(model))
    source = upcoming.resource(f"weights/{stored.key}", lambda: open_source(stored))
    if not isinstance(source, SafetensorsSource):
        return 0
    names, cuts = blueprint.layer(upcoming.member).tensors.values(), blueprint.cuts
    return source.will_need(dict.fromkeys(cuts[n].stored if n in cuts else n for n in names))

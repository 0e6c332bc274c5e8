"""Checks of a checkpoint saved with `save.compressed=false`: dense weights with chosen values."""

from __future__ import annotations

from collections.abc import Iterator

from stages.formats.checksums import checksum
from stages.formats.layer_artifact import CHECKSUM
from stages.verify.subject import Subject
from stages.verify.values import differs
from stages.weights.folder import Layout
from stages.weights.safetensors_source import SafetensorsSource


def check_plain(subject: Subject) -> Iterator[str]:
    """Every weight that a solver chose is there, dense, in the model's dtype."""
    from stages.formats.compressed_layer import CompressedLayer

    for artifact in subject.layers:
        path = artifact.file(CHECKSUM)
        sums = SafetensorsSource(Layout(where=str(path), files={CHECKSUM: path}, tensors=None))
        for prefix, scheme in CompressedLayer(artifact).weights.schemes.items():
            name = f"{prefix}.weight"
            if name not in subject.specs:
                continue  # the check of names tells it
            weight = subject.saved.read([name])[name]
            found = checksum(weight.float(), scheme, subject.dtype)
            chosen = sums.read([f"{prefix}.{side}" for side in found])
            if any(differs(found[side], chosen[f"{prefix}.{side}"]) for side in found):
                yield f"{name} is another weight than the solver chose"

"""Weight source over a GGUF file, dequantized tensor by tensor.

The `gguf` package dequantizes, and transformers' own tensor processors give each tensor its name
and layout there, one tensor at a time, so that a layer is read without reading the whole model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.outside import PinnedFile
from stages.weights.source import TensorSpec, no_such_tensor
from stages.weights.source_manifest import SourceManifest

if TYPE_CHECKING:
    from io import FileIO

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class GgufSource:
    """A `WeightSource` over one GGUF file.

    `tensors`: checkpoint name in transformers -> {"stored": name in the file, "type": ggml's name
    of the number format, "start" and "length": position of its bytes, "rows": shape as stored,
    "shape": shape in transformers}. All tensors are returned in `dtype`.
    """

    def __init__(
        self,
        file: PinnedFile,
        *,
        tensors: Mapping[str, Any],
        dtype: str,
        architecture: str,
        config: Mapping[str, Any],
    ) -> None:
        self.file = file
        self.tensors = tensors
        self.dtype = dtype
        self.architecture = architecture
        self.config = dict(config)

    @staticmethod
    def of(file: PinnedFile, manifest: SourceManifest) -> GgufSource:
        """The source for the manifest of a `load` result, whose file is now this one."""
        settings = manifest.settings
        return GgufSource(
            file,
            tensors=manifest.tensors or {},
            dtype=settings["dtype"],
            architecture=settings["architecture"],
            config=settings["config"],
        )

    def specs(self) -> Mapping[str, TensorSpec]:
        return {
            name: TensorSpec(name=name, shape=tuple(entry["shape"]), dtype=self.dtype)
            for name, entry in self.tensors.items()
        }

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        processor = self._processor()
        found: dict[str, Tensor] = {}
        with self._open() as file:
            for name in names:
                entry = self._entry(name)
                file.seek(entry["start"])
                data = self._read(file, entry)
                found[name] = self._values(entry, data, processor).to(device)
        return found

    def rows(self, name: str) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
        """The bytes of a matrix's rows as stored, [rows, bytes], and their order in transformers.

        Raises ValueError where transformers does more to the matrix than to move its rows.
        """
        import numpy as np
        from gguf import GGMLQuantizationType
        from gguf.quants import quant_shape_to_byte_shape

        entry = self._entry(name)
        count = entry["rows"][0]
        marks = np.arange(2 * count, dtype=np.float64).reshape(count, 2)
        moved = np.array(self._processor().process(weights=marks, name=entry["stored"]).weights)
        if moved.shape != marks.shape or list(entry["rows"]) != list(entry["shape"]):
            raise ValueError("transformers has the matrix in another layout")
        order = (moved[:, 0] / 2).astype(np.intp)  # the first mark of row i is 2 i
        if not np.array_equal(marks[order % count], moved):
            raise ValueError("transformers has other numbers in the matrix")
        with self._open() as file:
            file.seek(entry["start"])
            raw = np.frombuffer(self._read(file, entry), dtype=np.uint8)
        stored = GGMLQuantizationType[entry["type"]]
        return raw.reshape(quant_shape_to_byte_shape(entry["rows"], stored)), order

    def _processor(self) -> Any:
        from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

        processor_class: Any = TENSOR_PROCESSORS.get(self.architecture, TensorProcessor)
        return processor_class(config=self.config)

    def _entry(self, name: str) -> Mapping[str, Any]:
        if name not in self.tensors:
            raise no_such_tensor(name, self.tensors, str(self.path))
        entry: Mapping[str, Any] = self.tensors[name]
        return entry

    @contextmanager
    def _open(self) -> Iterator[FileIO]:
        try:
            with self.file.open() as file:
                yield file
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error.strerror or error}") from error

    @property
    def path(self) -> Path:
        return self.file.path

    def _read(self, file: FileIO, entry: Mapping[str, Any]) -> bytearray:
        data = bytearray(entry["length"])
        view, done = memoryview(data), 0
        while done < len(data):  # one read returns at most 2 GiB
            count = file.readinto(view[done:])
            if not count:
                raise UserError(f"{self.path} ends inside {entry['stored']!r}")
            done += count
        return data

    def _values(self, entry: Mapping[str, Any], data: bytearray, processor: Any) -> Tensor:
        import numpy as np
        import torch
        from gguf import GGMLQuantizationType, dequantize
        from gguf.quants import quant_shape_to_byte_shape

        from stages.weights.dtypes import torch_dtype

        stored = GGMLQuantizationType[entry["type"]]
        raw = np.frombuffer(data, dtype=np.uint8)
        raw = raw.reshape(quant_shape_to_byte_shape(entry["rows"], stored))
        processed = processor.process(weights=dequantize(raw, stored), name=entry["stored"])
        values = torch.from_numpy(np.array(processed.weights, order="C"))
        if values.shape != tuple(entry["shape"]):
            raise UserError(
                f"{entry['stored']!r} of {self.path} has the shape {list(values.shape)}, the model "
                f"wants {list(entry['shape'])}",
                remedy="the installed transformers reads this architecture differently: load again",
            )
        return values.to(torch_dtype(self.dtype))

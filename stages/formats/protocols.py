"""What our formats and compressed-tensors' have in common: either may be given for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from stages.formats.sharing import WeightFormat


class InputFormat(Protocol):
    """How an input is quantized: our `QArgs`, or compressed-tensors' QuantizationArgs."""

    @property
    def dynamic(self) -> Any: ...

    @property
    def symmetric(self) -> bool: ...


class ModuleFormat(Protocol):
    """How a module is quantized: our `SchemeGroup`, or compressed-tensors' QuantizationScheme."""

    @property
    def weights(self) -> WeightFormat | None: ...

    @property
    def input_activations(self) -> InputFormat | None: ...

    @property
    def format(self) -> Any: ...

    @property
    def targets(self) -> Sequence[str]: ...

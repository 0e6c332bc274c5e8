"""A CUDA driver with two GPUs, in place of the machine's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from pipeline.machine import gpus

MODELS = (("NVIDIA H200", (9, 0), 150 * 10**9), ("NVIDIA A100", (8, 0), 85 * 10**9))


class FakeDriver:
    """The functions of libcuda that are asked; references are ctypes.byref of the answers."""

    def __init__(self, models: tuple[tuple[str, tuple[int, int], int], ...]) -> None:
        self.models = models

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 13000
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self.models)
        return 0

    def cuDeviceGet(self, handle: Any, index: int) -> int:
        handle._obj.value = 100 + index
        return 0

    def cuDeviceGetName(self, name: Any, room: int, handle: Any) -> int:
        name.value = self.models[handle.value - 100][0].encode()[: room - 1]
        return 0

    def cuDeviceTotalMem_v2(self, size: Any, handle: Any) -> int:
        size._obj.value = self.models[handle.value - 100][2]
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, handle: Any) -> int:
        value._obj.value = self.models[handle.value - 100][1][{75: 0, 76: 1}[which]]
        return 0


@contextmanager
def fake_gpus(
    *models: tuple[str, tuple[int, int], int], cuda: str | None = "13.0"
) -> Iterator[None]:
    """As if the driver found these GPUs and torch were built for `cuda`."""
    driver = FakeDriver(models) if models else None
    gpus.gpus.cache_clear()
    try:
        version = f"cuda: Optional[str] = {cuda!r}"
        with (
            patch("pipeline.machine.gpus._driver", lambda: driver),
            patch("pipeline.machine.gpus._torch_version", lambda: version),
        ):
            yield
    finally:
        gpus.gpus.cache_clear()

"""Triton's interpreter, in which tests of marker `triton` run kernels on a CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def interpreter() -> Iterator[None]:
    """Fail where kernels would be compiled, which a CPU cannot run; one thread, as it has state."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.fail("set TRITON_INTERPRET=1, as .ci/triton does")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

"""All kernels compile for the GPUs of three generations, and keep their state in registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.triton
ROOT = Path(__file__).resolve().parents[2]
SPILLED = 192
"""Bytes a thread that refits and descent may spill together: of three tiles in registers."""


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_kernels_compile_and_do_not_spill(capability: int) -> None:
    command = [sys.executable, "-m", "tests.kernels.compiling", str(capability)]
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({kernel["kernel"] for kernel in found}) == 6
    assert {kernel["kernel"] for kernel in found if kernel["tf32"]} == {"add_product_kernel"}
    assert [kernel for kernel in found if kernel["spilled"] > bound(kernel)] == []


def bound(kernel: dict[str, Any]) -> int:
    constants = kernel["constants"]
    both = constants.get("REFIT") == "True" and constants.get("DESCEND") == "True"
    return SPILLED if both else 0

"""The oracle of the observers' tests gives llm-compressor's own bytes; see test_differential.py."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
from safetensors.torch import load_file, save_file

from stages.compress.grid import grid_of
from stages.compress.observers import minmax
from tests.benchmarks.launch import launch
from tests.stages.compress.observers.peer_search import IMATRIX, MSE, WIDER, searched
from tests.stages.compress.observers.test_mse import FORMATS, case

PEER = os.environ.get("PRESSWORK_PEER_PYTHON", "")
SCRIPT = Path(__file__).with_name("peer_observers.py")
SEARCHES: dict[str, tuple[dict[str, Any], bool]] = {
    "memoryless_mse": (MSE, False),
    "imatrix_mse": (IMATRIX, True),
    "nvfp4_expanded_mse": (WIDER, False),
    "nvfp4_expanded_imatrix": ({**WIDER, "grid": 200}, True),
}

pytestmark = [
    pytest.mark.differential,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not PEER, reason="PRESSWORK_PEER_PYTHON is not set: see setup_peer.sh"),
]


def test_the_oracle_of_every_search_gives_the_peers_bytes(tmp_path: Path) -> None:
    weight, squares = case(seed=3)
    formats = {name: preset_name_to_scheme(name, ["Linear"]).weights for name in FORMATS}
    wanted = [
        (f"{preset}/{observer}", observer, args.model_dump(mode="json"))
        for preset, args in formats.items()
        for observer in ("memoryless_minmax", *SEARCHES)
        if args is not None and not ("imatrix" in observer and args.strategy in ("tensor", "block"))
    ]
    save_file(
        {"weight": weight, "squares": squares.contiguous()},
        tmp_path / "in.safetensors",
        metadata={"wanted": json.dumps(wanted)},
    )
    launch([PEER, str(SCRIPT), str(tmp_path / "in.safetensors"), str(tmp_path / "out.safetensors")])
    theirs = load_file(tmp_path / "out.safetensors")
    assert len(wanted) > 40
    for key, observer, given in wanted:
        args = QuantizationArgs.model_validate(given)
        if observer == "memoryless_minmax":
            mine = minmax.observe(weight, grid_of(args))
        else:
            options, weighted = SEARCHES[observer]
            mine = searched(weight, args, squares if weighted else None, **options, last=weighted)
        assert torch.equal(mine.scale, theirs[f"{key}.scale"]), key
        if mine.zero_point is not None:
            assert torch.equal(mine.zero_point, theirs[f"{key}.zero_point"]), key
        if mine.global_scale is not None:
            assert torch.equal(mine.global_scale, theirs[f"{key}.global_scale"]), key

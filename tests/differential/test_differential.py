"""Round-to-nearest checkpoints equal llm-compressor's, but for what DIFFERENCES.md lists.

One command, in an environment of its own for the peer:

    tests/benchmarks/setup_peer.sh DIR && export PRESSWORK_PEER_PYTHON=DIR/bin/python
    PRESSWORK_MODEL=FOLDER python -m pytest -m differential tests/differential

PRESSWORK_MODEL is a transformers folder to compare as well, in formats without groups of 128;
leave it out for the tiny models alone. PRESSWORK_WRITE_DIGESTS=1 writes digests.json again.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.differential import both, frozen
from tests.differential.cases import CASES, Case
from tests.differential.compare import Difference, compare, tensors_of
from tests.differential.models import write_model

MODEL = os.environ.get("PRESSWORK_MODEL", "")
PEER = os.environ.get("PRESSWORK_PEER_PYTHON", "")
SUBJECTS = ["llama", "qwen3_moe", "llama_float32", *(["given"] if MODEL else [])]
INPUT = "model.layers.0.self_attn.o_proj.input_scale"
BFLOAT16, FLOAT32, DEEP = 0.02, 1e-5, 0.15
"""How far calibrated inputs may be apart: the programs run the model in their own arithmetic.

`DEEP` is for a given model in bfloat16, whose later layers see the errors of all before.
"""

pytestmark = [
    pytest.mark.differential,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not PEER, reason="PRESSWORK_PEER_PYTHON is not set: see setup_peer.sh"),
]


def cases_for(subject: str) -> list[Case]:
    """All for the tiny models in bfloat16; those that see data in float32; a model's own subset."""
    if subject == "llama_float32":
        return [case for case in CASES.values() if case.data]
    if subject == "given":
        return [case for case in CASES.values() if case.name in GIVEN]
    return list(CASES.values())


GIVEN = (
    "W8A8 FP8 FP8_DYNAMIC NVFP4 NVFP4A16 MXFP4 MXFP4A16 MXFP8A16 W4A16-group64 W4A16-channel-asym "
    "W8A8-static-asym-minmax"
).split()
"""What has no groups of 128, which many small models cannot have."""


@pytest.fixture(scope="module", params=SUBJECTS)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, tuple[Path, Path]]]:
    """Both programs' checkpoints of one model by case."""
    subject: str = request.param
    work = tmp_path_factory.mktemp(subject)
    if subject == "given":
        model = Path(MODEL)
    else:
        dtype = torch.float32 if subject.endswith("float32") else torch.bfloat16
        model = write_model(work / "model", subject.removesuffix("_float32"), dtype)
    cases = cases_for(subject)
    ours = both.ours(model, cases, work / "ours")
    routers = "moe" in subject
    theirs = both.theirs(model, cases, work / "theirs", store=work / "ours/store", routers=routers)
    return subject, {case.name: (ours[case.name], theirs[case.name]) for case in cases}


def explained(difference: Difference, case: Case, subject: str) -> bool:
    """Whether DIFFERENCES.md has a reason; the numbers are those of its rows."""
    if difference.kind == "config":
        if difference.what.endswith("weights.observer"):  # 1
            return "theirs 'memoryless_minmax'" in difference.detail
        if difference.what.endswith("targets"):  # 2
            return case.name == "mixed"
    if difference.kind == "calibrated":  # 12
        return subject == "qwen3_moe"
    return False


def test_nothing_differs_without_a_reason(
    made: tuple[str, dict[str, tuple[Path, Path]]],
) -> None:
    subject, checkpoints = made
    found = {}
    for name, (ours, theirs) in checkpoints.items():
        tolerance = {"llama_float32": FLOAT32, "given": DEEP}.get(subject, BFLOAT16)
        differences = compare(ours, theirs, tolerance=tolerance)
        left = [d for d in differences if not explained(d, CASES[name], subject)]
        if left:
            found[name] = left
    assert not found


def test_the_peer_calibrates_qwen3_moe_without_a_causal_mask(
    made: tuple[str, dict[str, tuple[Path, Path]]],
) -> None:
    subject, checkpoints = made
    if subject != "qwen3_moe":
        return
    ours, theirs = (tensors_of(folder)[INPUT] for folder in checkpoints["FP8"])
    work = checkpoints["FP8"][0].parents[2]
    ids = load_file(next((work / "ours/store").rglob("tokens.safetensors")))["input_ids"].long()
    model = AutoModelForCausalLM.from_pretrained(
        work / "model", dtype=torch.bfloat16, attn_implementation="eager"
    )
    seen: dict[str, list[float]] = {"causal": [], "full": []}
    masks = {"causal": None, "full": torch.zeros(1, 1, *[ids.shape[1]] * 2, dtype=torch.bfloat16)}
    for kind, mask in masks.items():
        hook = model.get_submodule(INPUT.removesuffix(".input_scale")).register_forward_pre_hook(
            lambda module, args, largest=seen[kind]: largest.append(float(args[0].abs().max()))
        )
        with torch.no_grad():
            for row in ids:
                model(row[None], attention_mask=mask, use_cache=False)
        hook.remove()
    assert float(ours) == pytest.approx(max(seen["causal"]) / 448, rel=BFLOAT16)
    assert float(theirs) == pytest.approx(max(seen["full"]) / 448, rel=BFLOAT16)


def test_the_frozen_digests_are_those_of_the_peer(
    made: tuple[str, dict[str, tuple[Path, Path]]],
) -> None:
    subject, checkpoints = made
    if subject not in ("llama", "qwen3_moe"):
        return
    found = {
        name: frozen.digests(tensors_of(theirs))
        for name, (_, theirs) in checkpoints.items()
        if "static" not in name
    }
    if os.environ.get("PRESSWORK_WRITE_DIGESTS"):
        frozen.write(subject, found)
    assert frozen.read()[subject] == found

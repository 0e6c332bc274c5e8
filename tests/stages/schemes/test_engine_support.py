"""The table of engines: every shipped scheme has a reader, odd formats are warned of."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.config.schema import build
from stages.schemes.engine_support import engine_notes, engine_warnings, reader
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeConfig, SchemeGroup
from tests.jobs import Job
from tests.stages.schemes.presets import FOLDER, NAMES

UNREAD = ("mxfp6a16", "mxfp6a8", "mxfp4xfp8")
"""Presets since compressed-tensors 0.20 that no loader of vLLM 0.32 is known to read."""
SCHEMES = [FOLDER / f"{name}.yaml" for name in NAMES]
RUN_ON_CPU = {"w4a16", "w4a16_g64", "w4a16_asym", "w8a8", "int8", "fp8_dynamic"}
"""What vLLM 0.32 was seen to run on a CPU."""


def scheme_of(path: Path) -> SchemeConfig:
    return build(SchemeConfig, yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("path", SCHEMES, ids=lambda path: path.stem)
def test_every_shipped_scheme_has_a_reader_in_vllm(path: Path) -> None:
    warnings = list(engine_warnings(scheme_of(path)))
    if path.stem in UNREAD:
        (warning,) = warnings
        assert "no vLLM loader is known" in warning
    elif path.stem != "w4a16_asym":
        assert not warnings
    else:
        (warning,) = warnings
        assert "transformers loads W4A16 asym" in warning and "up to 5.22.2" in warning
        assert "vLLM" not in warning and "dequantize=True" in warning


@pytest.mark.parametrize("path", SCHEMES, ids=lambda path: path.stem)
def test_the_cpu_column_is_what_was_run(path: Path) -> None:
    groups = [group for _, group in scheme_of(path).ordered()]
    readers = [reader(group) for group in groups]
    runs = bool(groups) and all(found is not None and not found.cpu for found in readers)
    assert runs == (path.stem in RUN_ON_CPU) or path.stem == "mixed"


def test_a_format_that_nothing_loads_is_warned_of() -> None:
    odd = SchemeGroup(weights=QArgs(num_bits=8, type="int", strategy="tensor"))
    assert reader(odd) is None
    (warning,) = engine_warnings(SchemeConfig(weights=odd.weights))
    assert "no vLLM loader is known" in warning


def test_a_cache_that_no_engine_loads_is_warned_of() -> None:
    cache = QArgs(
        num_bits=4,
        type="float",
        strategy="tensor_group",
        group_size=16,
        dynamic="local",
        scale_dtype="float8_e4m3fn",
    )
    (warning,) = engine_warnings(SchemeConfig(kv_cache=cache))
    assert "kv_cache in FP8 only" in warning


def test_a_plan_says_which_engine_runs_what(
    tmp_path: Path, tiny_llama: Path, some_text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Job(folder=tmp_path, model=tiny_llama, text=some_text).plan()
    assert "vLLM reads it as WNA16" in capsys.readouterr().out.replace("\n", " ")


def test_notes_name_each_format_once() -> None:
    (scheme,) = [scheme_of(path) for path in SCHEMES if path.stem == "nvfp4"]
    assert len(list(engine_notes(scheme))) == 1

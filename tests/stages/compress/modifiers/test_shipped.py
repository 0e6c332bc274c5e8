"""The shipped modifier configs name every option there is, with the default that code has."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from stages.compress.modifiers import (
    AutoRound,
    Awq,
    Gptaq,
    Gptq,
    Keep,
    LogEqualization,
    Rtn,
    SmoothQuant,
    SpinQuant,
)

FOLDER = Path(__file__).parents[4] / "conf" / "modifier"


@pytest.mark.parametrize(
    "modifier",
    [
        AutoRound(),
        Awq(),
        Gptaq(),
        Gptq(),
        Keep(),
        LogEqualization(),
        Rtn(),
        SmoothQuant(),
        SpinQuant(),
    ],
    ids=lambda m: m.kind,
)
def test_a_shipped_config_is_the_default(modifier: Any) -> None:
    config = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{modifier.kind}.yaml"))
    assert config == {"kind": modifier.kind, **asdict(modifier)}
    assert len(fields(modifier)) == len(config) - 1

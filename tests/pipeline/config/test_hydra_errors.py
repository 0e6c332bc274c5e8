"""Errors of composition with the shipped configs: each says what to write instead."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hydra.errors import HydraException
from omegaconf import DictConfig

from pipeline.config.hydra_errors import explain
from pipeline.config.searchpath import own_configs
from tests.pipeline.tiny import composed


def partial_config(words: Sequence[str]) -> DictConfig:
    return composed(own_configs(), *words, name="config")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (
            "experiment=int4_fp8",
            r"experiment=int4_fp8: nothing .*\n  add it: \+experiment=int4_fp8",
        ),
        (
            "+save.compressed=false",
            "save.compressed is in the config already.*\n  leave out the .: save.compressed=f",
        ),
        (
            "model=org/name",
            "model=org/name: there is .*\n  for one of the hub: model=hub model.id=org/",
        ),
        ("scheme=w4a17", "scheme=w4a17: there is no such option\n  did you mean w4a16?"),
    ],
)
def test_a_word_that_is_not_taken_is_told_as_it_should_be(word: str, told: str) -> None:
    with pytest.raises(HydraException) as refused:
        composed(own_configs(), word, name="config")
    found = str(explain(refused.value, [word], partial_config))
    assert re.match(told, found), found

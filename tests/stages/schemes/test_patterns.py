"""Regular expressions of strangers: read as `re.match` reads them, in bounded time."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from stages.schemes import patterns
from stages.schemes.patterns import check_pattern, check_patterns, is_quick, matches_pattern
from stages.verify.bounded_patterns import bounded

NAMES = (
    "lm_head",
    "model.layers.3.mlp.gate_proj",
    "model.layers.11.experts.7.up_proj",
    "",
    "a b$c",
)
QUICK = (
    ".*mlp.*",
    ".*(q|k|gate)_proj$",
    r"model\.layers\.\d+\.mlp",
    "lm_head",
    "[^.]+",
    "a? b",
    r"(?:model\.)?layers.*",
)
LINEAR = (
    *(r".*\..*\..*_proj", r"(?P<kind>\w+\.)+up_proj", r"(model|lm)+_head"),
    *(r"model\.layers\.([0-9]|1[0-5])\.mlp\.(gate|up|down)_proj.*.*.*", r"\w+\W+\w+\S*\s*\D*\b"),
)
STOPPED = (
    *(r"(?!.*lm_head).*", r".*(?<=mlp)\.", r"(?P<a>m).*(?P=a)", r"(.)\1", r"(?i)MODEL\..*"),
    *("model++", r"lm_head\Z", r"lm_head(?#the head)", "m(?>odel)", "[é]|model"),
)
"""By what each is matched: `re` itself, google-re2, `regex` with a timeout."""


@pytest.mark.parametrize("pattern", [*QUICK, *LINEAR, *STOPPED])
def test_every_engine_reads_a_pattern_as_re_does(pattern: str) -> None:
    for name in (*NAMES, "modèle.é", "\x0b"):
        assert matches_pattern(f"re:{pattern}", name) is (re.match(pattern, name) is not None)


def test_the_engine_is_chosen_by_what_the_pattern_uses() -> None:
    assert all(is_quick(f"re:{pattern}") for pattern in QUICK)
    assert not any(is_quick(f"re:{pattern}") for pattern in (*LINEAR, *STOPPED))
    assert all(patterns._tokens(pattern) is not None for pattern in (*QUICK, *LINEAR))
    assert all(patterns._tokens(pattern) is None for pattern in STOPPED)


PIECES = (
    *("a", "b", ".", "_", r"\.", r"\d", r"\w", r"\s", r"\b", "[ab]", "[^a]", "[0-9.]", "^", "$"),
    *("(", "(?:", ")", "|", "*", "+", "?", "{2}", "{1,2}", "{,2}", "*?", "[]a]", r"[\d-]", "(?=a)"),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=6).map("".join),
    st.text(alphabet="ab_.01 \té", max_size=5),
)
def test_whatever_is_accepted_matches_what_re_matches(pattern: str, name: str) -> None:
    try:
        found = matches_pattern(f"re:{pattern}", name)
    except UserError:
        return
    assert found is (re.match(pattern, name) is not None)


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "[", "a**", "(" * 900])
def test_what_is_no_regular_expression_is_told(pattern: str) -> None:
    with pytest.raises(UserError, match="is no regular expression"):
        check_pattern("ignore", f"re:{pattern}")


@pytest.mark.parametrize("pattern", ["(?=a){e}", "a{,3}", "[[:alpha:]]"])
def test_what_engines_read_otherwise_is_refused(pattern: str) -> None:
    with pytest.raises(UserError, match="do not read alike"):
        check_pattern("ignore", f"re:{pattern}")


def test_length_and_number_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="of 2001 characters"):
        check_pattern("ignore", "re:" + "a" * 2001)
    check_patterns("ignore", ["re:(?!a)b"] * patterns.MOST_SLOW)
    with pytest.raises(UserError, match="more than 32 regular expressions"):
        check_patterns("ignore", ["re:(?!a)b"] * (patterns.MOST_SLOW + 1))
    check_patterns("ignore", ["re:.*mlp.*", "lm_head"] * 500)


def test_a_repeat_that_would_take_much_memory_is_refused() -> None:
    with pytest.raises(UserError, match="too large"):
        matches_pattern("re:(ab){1001}", "ab")


def test_a_match_that_takes_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up: list[float] = []

    def match(name: str, timeout: float) -> Any:
        given_up.append(timeout)
        raise TimeoutError("regex timed out")

    monkeypatch.setattr("regex.compile", lambda pattern: SimpleNamespace(match=match))
    with pytest.raises(UserError, match="takes too long: more than"):
        patterns._stopped("(?!b)a")("a")
    assert given_up == [patterns.ONE_MATCH]


def test_all_names_together_have_a_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    limits: list[float] = []
    monkeypatch.setattr(patterns.time, "perf_counter", lambda: next(clock) / 5)
    monkeypatch.setattr(
        "regex.compile",
        lambda pattern: SimpleNamespace(match=lambda name, timeout: limits.append(timeout)),
    )
    match = patterns._stopped("(?!b)a")
    for _ in range(6):
        match("a")
    assert limits[0] == patterns.ONE_MATCH and limits[-1] == patterns.NOTABLE


def test_transformers_gets_names_in_place_of_patterns_that_re_may_be_slow_at() -> None:
    modules = ["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj", "lm_head"]
    quick, slow = "re:.*up_proj", r"re:(?:model\.layers\.(?:0|2)\.mlp.*)+"
    config = {
        "config_groups": {"a": {"targets": [quick, slow], "weights": None}, "W8A8": ["Linear"]},
        "ignore": [slow, "lm_head"],
    }
    found = bounded(config, modules)
    assert found["config_groups"]["a"] == {"targets": [quick, modules[0]], "weights": None}
    assert found["config_groups"]["W8A8"] == ["Linear"]
    assert found["ignore"] == [modules[0], "lm_head"]
    assert bounded({"config_groups": {}}, modules)["ignore"] == []

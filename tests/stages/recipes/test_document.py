"""YAML from strangers: read as plain data, or refused without doing anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from stages.recipes.document import Tagged, parse

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc.*:$ ", max_size=5), inner)
    ),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(value=plain)
def test_plain_data_comes_back_as_it_was(value: object) -> None:
    assert parse(yaml.safe_dump(value, default_flow_style=None)) == value


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(alphabet="ab01:-[]{}&*!?|>'\"%@#,. \n\t<=~", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except UserError as error:
        assert error.remedy


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [1", "this is no YAML"),
        ("a: 1\nb: 2\na: 3", "a is given twice"),
        ("a: {b: 1, b: 2}", "a.b is given twice"),
        ("1: a", "a key is no text"),
        ("[a]: b", "a key is no text"),
        ("a: .nan", "a is nan"),
        ("a: -.inf", "a is -inf"),
        ("a: 1\n---\nb: 2", "this is no YAML"),
        ("a: &x [*x]", "repeats itself"),
        (f"a: {'9' * 5000}", "is no int"),
        ("[" * 3000, "nested too deeply"),
        ("a: " + "[" * 60 + "]" * 60, "repeats itself"),
        ("a: \x00", "this is no YAML"),
    ],
)
def test_what_plain_data_cannot_be_is_refused(text: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        parse(text)
    assert told in str(error.value) and len(str(error.value)) < 1000


def test_aliases_do_not_multiply() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join(['*a' + str(k - 1)] * 9)}]" for k in range(1, 12)]
    with pytest.raises(UserError, match="repeats itself"):
        parse("\n".join(lines))
    assert parse("a: &x [1]\nb: *x") == {"a": [1], "b": [1]}


def test_tags_of_programs_are_kept_as_tags_and_never_followed(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    text = f"a: !!python/object/apply:os.system ['touch {trace}']\nb: !own 3\nc: !!binary aGk="
    assert parse(text) == {
        "a": Tagged("tag:yaml.org,2002:python/object/apply:os.system"),
        "b": Tagged("!own"),
        "c": Tagged("tag:yaml.org,2002:binary"),
    }
    assert not trace.exists()


def test_members_of_llm_compressors_enumerations_are_their_names() -> None:
    head = "a: !!python/object/apply:compressed_tensors.quantization.quant_args.QuantizationType"
    assert parse(f"{head} [int]") == {"a": "int"}
    assert isinstance(parse(f"{head} [int, 3]")["a"], Tagged)
    assert isinstance(parse(f"{head.replace('compressed_tensors', 'os')} [ls]")["a"], Tagged)

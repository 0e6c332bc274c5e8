"""Sizes and times in human units, alone and as fields of a config."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from pipeline.config.schema import build
from pipeline.config.units import number_of
from pipeline.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    size: int | None = field(default=None, metadata={"unit": "bytes"})
    time: float = field(default=1.0, metadata={"unit": "seconds"})


@pytest.mark.parametrize(
    ("text", "unit", "number"),
    [
        ("8GB", "bytes", 8e9),
        ("8 gb", "bytes", 8e9),
        ("1.5GiB", "bytes", 1.5 * 2**30),
        ("512Mi", "bytes", 512 * 2**20),
        ("5_000", "bytes", 5000),
        ("2k", "bytes", 2000),
        ("90", "seconds", 90),
        ("15min", "seconds", 900),
        ("1h30min", "seconds", 5400),
        ("1d 2h", "seconds", 93600),
        ("1h30", "seconds", None),
        ("1GB2MB", "bytes", None),
        ("8XB", "bytes", None),
        ("GB", "bytes", None),
        ("-1GB", "bytes", None),
        ("", "bytes", None),
        ("1e9", "bytes", None),
    ],
)
def test_a_text_is_so_many(text: str, unit: str, number: float | None) -> None:
    assert number_of(text, unit) == number


def test_fields_take_numbers_and_texts() -> None:
    assert build(Limits, {"size": "1kB", "time": "2min"}) == Limits(size=1000, time=120.0)
    assert build(Limits, {"size": 7, "time": 3}) == Limits(size=7, time=3.0)
    assert build(Limits, {"size": None}).size is None


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"size": "much"}, "size: 'much' is no number of bytes\n  write such as 8GB"),
        ({"size": "0.1"}, "is no number of bytes"),
        ({"time": "soon"}, "is no number of seconds\n  write such as 90, 15min"),
    ],
)
def test_other_texts_are_refused_with_examples(data: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        build(Limits, data)

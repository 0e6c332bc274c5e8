"""What is said of many parts in turn is told once, with a count."""

from __future__ import annotations

from pipeline.messages import Once, similar, together


def test_similar_messages_become_one_with_a_count() -> None:
    texts = [f"build[{i}]: blocks.{i}.proj has 2 dead channels" for i in range(30)]
    assert together([*texts, "another", "same", "same"]) == [
        "build[*]: blocks.*.proj has 2 dead channels (30 times)",
        "another",
        "same (2 times)",
    ]


def test_what_differs_in_more_than_the_number_of_a_part_stays_apart() -> None:
    texts = ["blocks.1.proj has 2 dead channels", "blocks.2.proj has 3 dead channels"]
    assert together(texts) == texts
    assert similar("version 0.19 of W4A16 g64, 3.5 GB") == "version 0.19 of W4A16 g64, 3.5 GB"


def test_what_was_told_of_one_part_is_not_told_of_the_next() -> None:
    once = Once()
    assert once.new(["blocks.1.a is dead", "b"]) == ["blocks.1.a is dead", "b"]
    assert once.new(["blocks.2.a is dead", "c"]) == ["c"]

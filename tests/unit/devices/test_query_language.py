from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.query.language import And, Not, Or, QueryError, Term, parse


def test_terms_side_by_side_must_all_hold() -> None:
    tree = parse("profile:stm32l4 site:plant-3 version<1.4 label.line=7 seen<24h not label.tag=canary")
    assert isinstance(tree, And)
    assert [(t.field, t.operator, t.value) for t in tree.parts if isinstance(t, Term)] == [
        ("profile", ":", "stm32l4"),
        ("site", ":", "plant-3"),
        ("version", "<", "1.4"),
        ("label.line", "=", "7"),
        ("seen", "<", "24h"),
    ]
    assert isinstance(tree.parts[-1], Not)


def test_and_binds_closer_than_or_and_parentheses_closest() -> None:
    tree = parse("(site:a or site:b) AND link:nbiot or site:c")
    assert isinstance(tree, Or)
    assert isinstance(tree.parts[0], And)
    assert isinstance(tree.parts[0].parts[0], Or)


def test_a_field_may_begin_like_a_keyword_and_a_value_may_be_one() -> None:
    tree = parse("label.note:not site:or")
    assert isinstance(tree, And)
    assert parse("orbit:1") == Term("orbit", ":", "1", False, 0, 6)


def test_quotes_keep_spaces_and_stars() -> None:
    assert parse(r'site:"plant * \"3\""') == Term("site", ":", 'plant * "3"', False, 0, 5)
    tree = parse("endpoint:abc*")
    assert isinstance(tree, Term)
    assert tree.wildcard


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_an_empty_filter_has_no_tree(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "position", "word"),
    [
        ("plant-3", 7, "operator"),
        ("site:", 5, "value"),
        ("site:a or", 9, "term"),
        ("site:a )", 7, "parenthesis"),
        ("(site:a", 7, "open"),
        ("=7", 0, "term"),
        ("site:a \x00", 7, "U+0000"),
        ("(" * 17 + "site:a" + ")" * 17, 16, "parentheses"),
        ("x" * 1001, 1000, "1001"),
        ("not not site:a", 8, "operator"),
        ('site:"a', 5, "value"),
    ],
)
def test_an_error_points_at_its_position(text: str, position: int, word: str) -> None:
    with pytest.raises(QueryError) as error:
        parse(text)
    assert error.value.position == position
    assert word in error.value.message
    assert error.value.fix


pieces = st.lists(
    st.sampled_from(["site:", "a", "(", ")", " ", "and", "or", "not", '"', "<", "=", "*", "label.", "seen<24h", "\\"])
    | st.characters()
).map("".join)


@given(st.text() | pieces)
def test_garbage_raises_nothing_but_a_query_error_within_the_text(text: str) -> None:
    try:
        parse(text)
    except QueryError as error:
        assert 0 <= error.position <= len(text)

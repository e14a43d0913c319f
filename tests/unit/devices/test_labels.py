from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.labels import LabelError, format_labels, parse_keys, parse_labels

values = st.text(st.sampled_from(" \\;=\n\tab") | st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))


def test_labels_are_pairs_apart_by_semicolons() -> None:
    assert parse_labels(" line=7; tag = a=b ;; note=") == {"line": "7", "tag": "a=b", "note": ""}


def test_a_backslash_keeps_a_semicolon_and_a_space_at_an_end() -> None:
    assert parse_labels(r"note=a\;b\ ; line=7") == {"note": "a;b ", "line": "7"}


@given(st.dictionaries(st.sampled_from(["a", "b.c", "x/y"]), values.map(lambda text: text[:100])))
def test_what_is_written_is_read_back(labels: dict[str, str]) -> None:
    assert parse_labels(format_labels(labels)) == labels


@given(st.text())
def test_garbage_raises_nothing_but_a_label_error(text: str) -> None:
    try:
        parse_labels(text)
    except LabelError as error:
        assert error.fix


@pytest.mark.parametrize("text", ["line", "a b=1", "=1", "a=1;a=2", "a=" + "x" * 129, "a=\x00"])
def test_what_is_no_label_is_refused(text: str) -> None:
    with pytest.raises(LabelError):
        parse_labels(text)


def test_more_labels_than_a_node_may_have_are_refused() -> None:
    with pytest.raises(LabelError, match="33 labels"):
        parse_labels(";".join(f"k{number}=1" for number in range(33)))


def test_keys_may_be_apart_by_commas_or_spaces() -> None:
    assert parse_keys("line, tag  x/y") == ["line", "tag", "x/y"]

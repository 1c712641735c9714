"""JSON of others: read as the standard library does, but never deeper than a bound."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from speculation.foreign_json import _STRING, MAX_DEPTH, NestingError, depth, loads

texts = st.text(st.sampled_from('[]{}",:\\a1 \né'), max_size=40)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=20,
)


def depth_of(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


def outcome(read, content):
    try:
        return repr(read(content))
    except ValueError as error:
        return type(error), str(error)


@given(values, st.booleans())
def test_the_depth_is_that_of_the_value_whatever_its_strings_hold(value, escaped):
    assert depth(json.dumps(value, ensure_ascii=escaped)) == depth_of(value)


@given(values | texts, st.sampled_from(["utf-8", "utf-16", "utf-32"]))
@example('"\\', "utf-8")
@example("\ufeff1", "utf-8")
def test_all_else_is_as_in_the_standard_library(value, encoding):
    text = value if isinstance(value, str) else json.dumps(value)
    assert outcome(loads, text) == outcome(json.loads, text)
    assert outcome(loads, text.encode(encoding)) == outcome(json.loads, text.encode(encoding))


@given(texts)
def test_a_string_ends_somewhere_so_that_no_text_is_looked_at_twice(text):
    assert _STRING.match('"' + text) is not None


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_as_deep_as_the_bound_is_read_and_one_more_is_not(opening, closing):
    deep = opening * MAX_DEPTH + "1" + closing * MAX_DEPTH
    assert loads(deep) == json.loads(deep)
    for content in (opening + deep + closing, (opening + deep).encode(), opening * 100_000):
        with pytest.raises(NestingError, match=f"^nested more than {MAX_DEPTH} deep$"):
            loads(content)


def test_many_beside_each_other_are_not_deep():
    wide = [[], {}] * 1000
    assert loads(json.dumps(wide)) == wide


def test_the_depth_goes_on_from_one_part_of_a_large_text_to_the_next():
    assert depth("[" * 3 + " " * 200_000 + "[" * 2 + "]" * 5) == 5


def test_hooks_are_those_of_the_standard_library():
    assert loads('{"a": 1}', object_pairs_hook=list) == [("a", 1)]

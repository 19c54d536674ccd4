from __future__ import annotations

import contextlib
import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.search.fields import MAX_INT
from ridgeline.service.api import strict_json
from ridgeline.service.errors import InvalidInput

loads = partial(strict_json.loads, max_values=100_000)

_texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INT, MAX_INT)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=20,
)


@given(_values)
def test_reads_what_json_allows(value: object) -> None:
    assert loads(json.dumps(value).encode()) == value


def test_whole_numbers_may_be_written_with_a_point() -> None:
    text = b'{"a": 5.0, "b": [2e3, -0.0, 0.5, 9007199254740992.0, 1e300], "c": {"d": -7.00}}'
    value = loads(text)
    assert value == {"a": 5, "b": [2_000, 0, 0.5, MAX_INT, 1e300], "c": {"d": -7}}
    numbers = [value["a"], *value["b"], value["c"]["d"]]
    assert [type(number) for number in numbers] == [int, int, int, float, int, float, int]


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    with contextlib.suppress(strict_json.NotJson, InvalidInput):
        loads(raw)


@pytest.mark.parametrize(
    ("text", "field", "reason"),
    [
        ('{"a": NaN}', "a", "finite"),
        ('{"a": [1, -Infinity]}', "a.1", "finite"),
        ('{"a": 1e999}', "a", "finite"),
        (f'{{"a": {2**53 + 1}}}', "a", "±9007199254740992"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "a.b", "twice"),
        ('{"a": "x\\u0000"}', "a", "NUL"),
        ('{"x\\u0000": 1}', "x\x00", "NUL"),
        ('{"a": "\\ud800"}', "a", "surrogate"),
        ('{"a": "\\udc00\\ud800"}', "a", "surrogate"),
        ("[" * 65 + "]" * 65, ".".join("0" * 64), "deeper than 64"),
        ('{"a":' * 65 + "1" + "}" * 65, ".".join("a" * 64), "deeper than 64"),
        ("[" * 99_999 + "]" * 99_999, "", "deeper than 64"),
        ("[" * 200_000 + "]" * 200_000, "", "at most 100000 values"),
        (f"[{'{},' * 50_000}{{}}]", "", "at most 100000 values"),
        (f"[{'1,' * 100_000}1]", "", "at most 100000 values"),
        (json.dumps(dict.fromkeys(map(str, range(10_001)), 1)), "", "10000 names in one object"),
    ],
)
def test_names_the_field_that_breaks_a_rule(text: str, field: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        loads(text.encode())
    assert caught.value.problems[0][0] == field
    assert reason in caught.value.problems[0][1]


@pytest.mark.parametrize(
    ("raw", "position"),
    [
        (b"hello", "line 1, column 1"),
        (b'{"a": 1,\n "b": }', "line 2, column 7"),
        (b'{"a": 1} x', "line 1, column 10"),
        (b'\xef\xbb\xbf{"a": 1}', "line 1, column 1"),
        (b'{"a": "\xff"}', "byte 7"),
        (b'"\xed\xa0\x80"', "byte 1"),
        ('{"a": 1}'.encode("utf-16"), "byte 0"),
        (b"1" * 5_000, "digits"),
        (b"  ", "line 1"),
    ],
)
def test_names_the_position_where_it_is_no_json(raw: bytes, position: str) -> None:
    with pytest.raises(strict_json.NotJson, match=position):
        loads(raw)


def test_pairs_of_surrogates_are_one_character() -> None:
    assert loads(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_the_first_problems_are_enough() -> None:
    with pytest.raises(InvalidInput) as caught:
        loads(json.dumps([2**60] * 10_000).encode())
    assert len(caught.value.problems) == 20

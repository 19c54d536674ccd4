"""Seeds: fixed for ever, and different for whatever is named differently."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.search.seeds import derive

_texts = st.text(st.characters(codec="utf-8", exclude_characters="\x1f"))
_parts = st.lists(st.integers() | _texts, max_size=4).map(tuple)


def test_derivation_never_changes() -> None:
    # Studies in databases are derived again from their seeds: these numbers must stay.
    assert derive(0, "random", 7, "l2") == 4414124923938236
    assert derive() == 8044937785282358


@given(_parts, _parts)
def test_other_parts_give_another_seed(
    one: tuple[int | str, ...], other: tuple[int | str, ...]
) -> None:
    assert (derive(*one) == derive(*other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [((1,), ("1",)), (("ab",), ("a", "b")), ((1, 2), (12,)), ((-1,), (1,)), ((), ("",))],
)
def test_lookalikes_differ(one: tuple[int | str, ...], other: tuple[int | str, ...]) -> None:
    assert derive(*one) != derive(*other)


@given(_parts)
def test_seeds_are_exact_in_float64(parts: tuple[int | str, ...]) -> None:
    assert 0 <= derive(*parts) < 2**53


def test_seeds_are_spread_evenly() -> None:
    counts = [0] * 10
    for number in range(10_000):
        counts[derive("even", number) * 10 // 2**53] += 1
    # Binomial(10000, 1/10): standard deviation 30.
    assert all(abs(count - 1_000) < 150 for count in counts)

"""The fields of a head are the same in C and in Python."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.transport.own import fields
from batchrun.transport.own.fields import Fields, PythonFields

IN_C = pytest.mark.skipif(Fields is PythonFields, reason="the extension is not built")
KINDS = [pytest.param(Fields, marks=IN_C), PythonFields]

TOLD = st.lists(
    st.tuples(
        st.sampled_from([b"Via", b"VIA", b"x-request-id", b"", bytes(range(256))]) | st.binary(max_size=4),
        st.binary(max_size=6) | st.sampled_from([b" a\t", b"\t \t", b"a b", b"\xa0"]),
    ),
    max_size=8,
)


def told(kind: type[PythonFields], given: list[tuple[bytes, bytes]], most: int, closed_at: int) -> tuple[object, ...]:
    found = kind(most)
    for place, (name, value) in enumerate(given):
        found.closed = place >= closed_at
        found.add(name, value)
    return list(found.values.items()), found.count, found.size, found.closed


@IN_C
@given(TOLD, st.integers(0, 9), st.integers(0, 9))
def test_the_same_in_c(given: list[tuple[bytes, bytes]], most: int, closed_at: int) -> None:
    assert told(Fields, given, most, closed_at) == told(PythonFields, given, most, closed_at)


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_lowered_and_fields_of_one_name_joined(kind: type[PythonFields]) -> None:
    found = kind(3)
    for name, value in ((b"Via", b" a\t"), (b"X-Long-" + b"N" * 200, b"\xe9"), (b"VIA", b"b"), (b"one", b"too many")):
        found.add(name, value)
    assert found.values == {"via": "a, b", "x-long-" + "n" * 200: "é"}
    assert (found.count, found.size) == (4, 3 + 3 + 4 + 207 + 1 + 4 + 3 + 1 + 4 + 3 + 8 + 4)
    found.closed = True
    found.add(b"trailer", b"t")
    assert (found.count, "trailer" in found.values) == (4, False)


@IN_C
@pytest.mark.parametrize("wrong", [(b"name",), ("name", b"value"), (b"name", None)])
def test_only_bytes_are_fields(wrong: tuple[object, ...]) -> None:
    with pytest.raises(TypeError, match="a field is a name and a value, both bytes"):
        Fields(9).add(*wrong)  # type: ignore[arg-type]  # what is tested


def test_without_the_extension_they_are_kept_in_python(without: Callable[[str, ModuleType], ModuleType]) -> None:
    loaded = without("_fields", fields)
    assert loaded.Fields is loaded.PythonFields

"""What reading a body takes beside its own bytes."""

import base64
import json
import tracemalloc
from collections.abc import Callable

import pytest

from inference.errors import ParameterInvalid
from service.body import _from_json, from_base64

SIZE = 4 * 2**20


def peak(work: Callable[[], object]) -> int:
    """The most bytes that `work` holds beside what was there before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ["aaaa " * (SIZE // 5), "aaaa\r\n" * (SIZE // 6), "a" * SIZE])
def test_base64_with_blanks_takes_what_it_weighs(text: str) -> None:
    assert peak(lambda: from_base64(text, "x")) < 3 * len(text)


def test_a_json_body_takes_twice_its_size() -> None:
    picture = "a" * SIZE
    arrived = [json.dumps({"images": [picture]}).encode()]
    assert peak(lambda: _from_json(arrived, 8)) < 2.2 * SIZE
    assert not arrived


@pytest.mark.parametrize("text", ["", "\n", " aGk= \t", "aG\r\nk="])
def test_base64_as_the_library_reads_it(text: str) -> None:
    assert from_base64(text, "x") == base64.b64decode("".join(text.split()), validate=True)


@pytest.mark.parametrize("text", ["aGk", "aGk=x", "ä", "\ud800", "aGk=\u2028", "a-_=", None, 7])
def test_what_is_no_base64_is_told(text: object) -> None:
    assert isinstance(from_base64(text, "x"), ParameterInvalid)

"""The tree in the docstring is the tree in the code."""

import re
from collections.abc import Iterator

from inference import errors
from inference.errors import ImageError, Overloaded, PetalpawError

FAMILIES = {"ImageError", "RequestError", "ArtifactError", "HostError", "WorkError"}


def leaves(kind: type[PetalpawError] = PetalpawError) -> Iterator[type[PetalpawError]]:
    for child in kind.__subclasses__():
        if child.__name__ not in FAMILIES:
            yield child
        yield from leaves(child)


def test_docstring_draws_the_tree() -> None:
    drawn = re.findall(r"[├└]── (\w+) +(\w+) +(\d{3})\n", errors.__doc__ or "")
    assert drawn == [(each.__name__, each.code, str(each.status)) for each in leaves()]
    families = re.findall(r"^    [├└]── (\w+)\n", errors.__doc__ or "", re.MULTILINE)
    assert families == [each.__name__ for each in PetalpawError.__subclasses__()]
    assert set(families) == FAMILIES


def test_codes_are_their_own() -> None:
    codes = [each.code for each in leaves()]
    assert len(set(codes)) == len(codes)
    assert PetalpawError.code not in codes


def test_errors_of_a_picture_are_never_the_servers_fault() -> None:
    assert all(400 <= each.status < 500 for each in ImageError.__subclasses__())


def test_detail_is_the_message() -> None:
    error = Overloaded("the queue is full; try again", retry_after=3)
    assert (error.detail, str(error), error.retry_after) == ("the queue is full; try again",) * 2 + (3,)

import re

from fer_pipeline import errors
from fer_pipeline.errors import FerError


def list_depths(kind: type[FerError], depth: int = 0) -> dict[str, int]:
    """Return the depth of each error class of the package, by its name."""
    depths = {kind.__name__: depth}
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            depths |= list_depths(child, depth + 1)
    return depths


def test_the_docstring_shows_the_whole_tree():
    bullets = re.findall(r"(?m)^( *)\* (\w+)", errors.__doc__)
    assert {name: len(indent) // 2 for indent, name in bullets} == list_depths(FerError)


def test_every_error_ends_with_a_status_that_is_no_success():
    kinds = [getattr(errors, name) for name in list_depths(FerError)]
    assert all(0 < kind.exit_code < 128 for kind in kinds)
    assert all(kind.__doc__ for kind in kinds)

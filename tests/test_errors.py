import re

from fer_pipeline import errors
from fer_pipeline.errors import FerError


def tree(kind: type[FerError], depth: int = 0) -> dict[str, int]:
    """The depth of each error below this one, as far as they are the package's own."""
    found = {kind.__name__: depth}
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            found |= tree(child, depth + 1)
    return found


def test_the_tree_is_drawn_as_it_is():
    drawn = {}
    for line in errors.__doc__.partition("The tree::")[2].splitlines():
        if match := re.match(r"    ([ |+]*)(\w+)$", line):
            drawn[match[2]] = len(match[1].rstrip()) // 4 + ("+" in match[1])
    assert drawn == tree(FerError)


def test_every_error_ends_with_a_status_that_is_no_success():
    kinds = [getattr(errors, name) for name in tree(FerError)]
    assert all(0 < kind.exit_code < 128 for kind in kinds)
    assert all(kind.__doc__ for kind in kinds)

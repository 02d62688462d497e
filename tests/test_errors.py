import re

from fer_pipeline import errors
from fer_pipeline.errors import FerError


def list_depths(error_class: type[FerError], depth: int = 0) -> dict[str, int]:
    """Return the depth of each error class of the package, by its name."""
    depths = {error_class.__name__: depth}
    for child in error_class.__subclasses__():
        if child.__module__ == errors.__name__:
            depths |= list_depths(child, depth + 1)
    return depths


def test_the_docstring_lists_all_error_classes():
    bullets = re.findall(r"(?m)^( *)\* (\w+)", errors.__doc__)
    assert {name: len(indent) // 2 for indent, name in bullets} == list_depths(FerError)


def test_every_error_has_an_exit_status_of_failure():
    error_classes = [getattr(errors, name) for name in list_depths(FerError)]
    assert all(0 < error_class.exit_code < 128 for error_class in error_classes)
    assert all(error_class.__doc__ for error_class in error_classes)

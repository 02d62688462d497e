"""Options and errors of the `build` function of a network."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fer_pipeline.errors import ConfigError
from fer_pipeline.text import one_line


@dataclass(frozen=True)
class BuildOptions:
    """The options of a `build` function: its parameters after the image size and the classes.

    Attributes:
        names: Names of the options.
        accepts_others: Whether the function has a parameter such as `**options`.
    """

    names: tuple[str, ...]
    accepts_others: bool

    @classmethod
    def from_function(cls, build: Callable[..., Any]) -> Self:
        """Return the options of a function."""
        parameters = list(inspect.signature(build).parameters.values())
        return cls(
            tuple(
                parameter.name
                for parameter in parameters[2:]
                if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            ),
            any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters),
        )

    @classmethod
    def from_source(cls, path: Path) -> Self:
        """Return the options of the function `build` in a Python file, which is not executed.

        To import the file would import Keras, which takes seconds.

        Raises:
            ValueError: The file has no function `build`.
        """
        for statement in _parse_statements(path):
            if isinstance(statement, ast.FunctionDef) and statement.name == "build":
                arguments = statement.args
                positional = [*arguments.posonlyargs, *arguments.args][2:]
                names = tuple(argument.arg for argument in [*positional, *arguments.kwonlyargs])
                return cls(names, arguments.kwarg is not None)
        raise ValueError(f"{path}: has no function build")

    def require_known(self, network: str, options: Mapping[str, Any]) -> None:
        """Check that there is an option for each configured one.

        Args:
            network: Name of the network, for the error message.
            options: Configured options (the setting `model.options`), by name.

        Raises:
            ConfigError: An option does not exist; the message lists all such options.
        """
        if self.accepts_others:
            return
        unknown_options = [option for option in options if option not in self.names]
        if unknown_options:
            raise ConfigError(
                f"model.options: {network} has no option {', '.join(unknown_options)}; its options"
                f" are {', '.join(self.names) or 'none'}"
            )


def read_constant(path: Path, name: str, default: int) -> int:
    """Return a number that a Python file defines; the file is not executed.

    Args:
        path: Python file.
        name: Name of the constant, whose value in the file must be a number.
        default: Number to return if the file does not define the constant.
    """
    for statement in _parse_statements(path):
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
            return int(ast.literal_eval(statement.value))
    return default


def _parse_statements(path: Path) -> Iterator[ast.stmt]:
    """Yield the statements at the top level of a Python file."""
    yield from ast.parse(path.read_text(encoding="utf-8")).body


def summarize_error(error: Exception) -> str:
    """Return the message of an exception on one line.

    Messages of Keras can contain escape sequences for bold text and a list of all arguments of the
    failed call. These are removed.
    """
    text = re.sub(r"\x1b\[\d*m", "", str(error)).partition("Arguments received by")[0]
    return one_line(text)

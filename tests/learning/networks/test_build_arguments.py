"""Options of a network, read from its source without importing Keras."""

import importlib
import inspect
from pathlib import Path

import pytest

from fer_pipeline.errors import ConfigError
from fer_pipeline.learning.networks import architectures, registry
from fer_pipeline.learning.networks.build_arguments import BuildOptions, read_constant


@pytest.mark.parametrize("name", registry.list_network_names())
def test_the_source_of_a_network_has_the_options_and_the_minimum_size_of_its_module(name):
    module = importlib.import_module(f"{architectures.__name__}.{name}")
    path = Path(inspect.getfile(module))
    assert BuildOptions.from_source(path) == BuildOptions.from_function(module.build)
    minimum = read_constant(path, "MIN_IMAGE_SIZE", default=1)
    assert minimum == getattr(module, "MIN_IMAGE_SIZE", 1)


def test_all_kinds_of_parameters_are_options(tmp_path):
    def build(size, classes, /, width, *others, depth=3, **options):
        """Build nothing."""

    path = tmp_path / "network.py"
    path.write_text("def build(size, classes, /, width, *others, depth=3, **options): ...\n")
    options = BuildOptions.from_source(path)
    assert options == BuildOptions.from_function(build) == BuildOptions(("width", "depth"), True)
    options.require_known("network", {"anything": 1})


def test_an_unknown_option_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"wide has no option deep, low; its options are width$"):
        BuildOptions(("width",), False).require_known("wide", {"deep": 1, "width": 2, "low": 3})


def test_a_file_without_a_build_function_is_a_mistake_of_its_author(tmp_path):
    path = tmp_path / "network.py"
    path.write_text("MIN_IMAGE_SIZE = 7\n")
    assert read_constant(path, "MIN_IMAGE_SIZE", default=1) == 7
    with pytest.raises(ValueError, match="no function build"):
        BuildOptions.from_source(path)

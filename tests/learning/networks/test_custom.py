import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fer_pipeline.config import Config, load_config
from fer_pipeline.errors import RunError
from fer_pipeline.learning.networks import registry
from fer_pipeline.pipelines.train import train
from tests.helpers.networks import get_build_error

GOOD = """
import keras

def build(size, classes, width=4):
    return keras.Sequential([
        keras.layers.Input((size, size, 1)),
        keras.layers.Flatten(),
        keras.layers.Dense(width),
        keras.layers.Dense(classes),
    ])

def wide(size, classes, **options):
    assert set(options) <= {"width"}
    return build(size, classes, options.get("width", 9))

NOT_CALLABLE = 3
"""
STRIDED = """
import keras

def build(size, classes, kernel=1, strides=2):
    pixels = keras.layers.Input((size, size, 1))
    inner = keras.Sequential([
        keras.layers.Input((size, size, 1)),
        keras.layers.Conv2D(4, kernel, strides=strides, name="shortcut"),
    ])
    maps = keras.layers.GlobalAveragePooling2D()(inner(pixels))
    return keras.Model(pixels, keras.layers.Dense(classes)(maps))
"""
_numbers = itertools.count()


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """A function that writes a module in the current folder and returns its dotted name."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write(text: str) -> str:
        # Python imports a module of the same name only once.
        package = tmp_path / f"own_{next(_numbers)}"
        package.mkdir()
        (package / "nets.py").write_text(text)
        return f"{package.name}.nets"

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


class TestCustomNetworks:
    def test_the_build_function_of_a_module_builds_the_network(self, write_module):
        network = registry.build_network(write_module(GOOD), 12, 3, {})
        assert network.count_params() == 145 * 4 + 5 * 3
        assert network.output_shape == (None, 3)

    def test_another_function_of_a_module_is_given_by_its_name(self, write_module):
        assert registry.build_network(f"{write_module(GOOD)}.wide", 12, 3, {}).layers[1].units == 9

    def test_options_are_passed_to_the_function(self, write_module):
        module = write_module(GOOD)
        assert registry.build_network(module, 12, 3, {"width": 2}).layers[1].units == 2
        assert registry.build_network(f"{module}.wide", 12, 3, {"width": 2}).layers[1].units == 2

    def test_a_function_may_be_in_the_init_file_of_a_package(self, write_module, tmp_path):
        module = write_module("")
        package = module.removesuffix(".nets")
        (tmp_path / package / "__init__.py").write_text(GOOD)
        assert registry.build_network(f"{package}.build", 12, 3, {}).output_shape == (None, 3)

    def test_a_network_of_the_package_is_built_by_its_full_dotted_name(self):
        network = registry.build_network(
            "fer_pipeline.learning.networks.architectures.system_a", 28, 7, {"hidden": 8}
        )
        assert network.name == "system_a"

    def test_building_a_network_does_not_change_sys_path(self, write_module):
        before = list(sys.path)
        registry.build_network(write_module(GOOD), 12, 3, {})
        get_build_error(write_module("1 / 0"), {})
        assert sys.path == before

    def test_a_file_in_the_current_folder_does_not_shadow_an_installed_module(
        self, write_module, tmp_path, monkeypatch
    ):
        write_module(GOOD)
        (tmp_path / "colorsys.py").write_text(GOOD)
        # As if nobody had imported it yet.
        monkeypatch.delitem(sys.modules, "colorsys", raising=False)
        assert get_build_error("colorsys.build", {}).startswith("model.name: colorsys (/")
        assert sys.modules["colorsys"].__file__ != str(tmp_path / "colorsys.py")

    def test_a_job_imports_the_module_from_its_current_folder(self, write_module, tmp_path):
        # As with spark-submit: Python searches the folder of the job's file, not the current one.
        job = tmp_path / "jobs" / "job.py"
        job.parent.mkdir()
        job.write_text(
            "import sys\n"
            "from fer_pipeline.learning.networks import registry\n"
            "print(registry.build_network(sys.argv[1], 12, 3, {}).output_shape)\n"
        )

        def run(folder: Path) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, job, name],
                cwd=folder,
                env={**os.environ, "KERAS_BACKEND": "numpy"},
                capture_output=True,
                text=True,
                check=False,
            )

        name = write_module(GOOD)
        in_folder = run(tmp_path)
        assert (in_folder.stdout, in_folder.returncode) == ("(None, 3)\n", 0), in_folder.stderr
        elsewhere = run(job.parent)
        assert elsewhere.returncode == 1
        assert f"model.name: no module {name.split('.')[0]}" in elsewhere.stderr


class TestCustomNetworkErrors:
    @pytest.mark.parametrize("name", ["..bundle", "a..b", ".", "a.", "a.b-c", "a/b.py", "a.1b"])
    def test_an_invalid_dotted_name_is_refused(self, name):
        message = get_build_error(name, {})
        assert message.startswith(f"model.name: {name!r} is not a valid dotted name; ")
        assert "package.module or package.module.function" in message

    def test_a_missing_module_is_named(self):
        message = get_build_error("no_such.nets.build", {})
        assert message.startswith("model.name: no module no_such.nets for no_such.nets.build; ")
        assert "PYTHONPATH" in message

    def test_a_missing_module_of_a_package_is_named(self, write_module):
        package = write_module(GOOD).removesuffix(".nets")
        message = get_build_error(f"{package}.nits.build", {})
        assert message.startswith(f"model.name: no module {package}.nits for ")
        message = get_build_error(f"{package}.nits", {})
        assert message.startswith(f"model.name: {package} (a folder of modules) has no function ")
        assert "function nits; expected nits(size, classes, **options)" in message

    @pytest.mark.parametrize("function", ["NOT_CALLABLE", "none", "build.wide"])
    def test_a_missing_function_is_named(self, write_module, function, tmp_path):
        module = write_module(GOOD)
        message = get_build_error(f"{module}.{function}", {})
        if function == "build.wide":
            assert message.startswith(f"model.name: no module {module}.build for ")
        else:
            file = tmp_path / Path(*module.split(".")).with_suffix(".py")
            assert message.startswith(f"model.name: {module} ({file}) has no function {function};")
            assert f" expected {function}(size, classes, **options)" in message
            assert message.endswith(" keras.Model")

    def test_a_module_without_a_build_function_is_refused(self, write_module):
        message = get_build_error(write_module("import keras"), {})
        assert "has no function build; expected build(size, classes, **options)" in message

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("x = 1\n1 / 0", "ZeroDivisionError: division by zero (FILE, line 2)"),
            ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
            ("from keras import layer", "ImportError: cannot import name 'layer' from 'keras'"),
            ("def build(:", "SyntaxError: invalid syntax (nets.py, line 1)"),
        ],
    )
    def test_the_error_of_an_import_is_reported_with_its_line(
        self, write_module, text, problem, tmp_path
    ):
        module = write_module(text)
        file = str(tmp_path / Path(*module.split(".")).with_suffix(".py"))
        message = get_build_error(module, {})
        assert message.startswith(
            f"model.name: importing {module} failed: {problem.replace('FILE', file)}"
        )

    def test_the_message_about_an_unknown_option_lists_the_options(self, write_module):
        module = write_module(GOOD)
        message = get_build_error(module, {"height": 3})
        assert message.startswith(f"model.options: {module} has no option height; ")
        assert message.endswith(" options are width")

    @pytest.mark.parametrize(
        ("body", "problem"),
        [
            ("return undefined", "NameError: name 'undefined' is not defined (FILE, line 2)"),
            ("raise ValueError('too\\nsmall')", "ValueError: too small (FILE, line 2)"),
        ],
    )
    def test_the_error_of_the_function_is_reported_with_its_line(
        self, write_module, body, problem, tmp_path
    ):
        module = write_module(f"def build(size, classes):\n    {body}\n")
        file = str(tmp_path / Path(*module.split(".")).with_suffix(".py"))
        message = get_build_error(module, {})
        assert message.startswith(f"model.name: {module} failed for 28x28 pixels and 7 classes: ")
        assert message.endswith(f": {problem.replace('FILE', file)}")

    def test_a_function_with_other_parameters_is_refused(self, write_module):
        message = get_build_error(write_module("def build(size):\n    return size"), {})
        assert "TypeError: build() takes 1 positional argument but 2 were given" in message

    @pytest.mark.parametrize(("expression", "kind"), [("None", "NoneType"), ("size", "int")])
    def test_a_function_that_returns_no_model_is_refused(self, write_module, expression, kind):
        module = write_module(f"def build(size, classes):\n    return {expression}\n")
        message = get_build_error(module, {})
        assert message.startswith(f"model.name: {module} returned {kind}, ")
        assert message.endswith(" keras.Model")

    @pytest.mark.parametrize(
        ("call", "problem"),
        [
            ("build(size, classes - 1)", "returns (None, 6), expected logits of shape (None, 7)"),
            ("build(size, 1)", "returns (None, 1), expected logits of shape (None, 7)"),
            ("maps(size)", "returns (None, 28, 28, 7), expected logits of shape (None, 7)"),
            ("two(size, classes)", "returns list, expected logits of shape (None, 7)"),
            ("build(48, classes)", "does not accept images of shape (None, 28, 28, 1): "),
            (
                "ending(build(size, classes), keras.layers.Softmax(name='last'))",
                "ends in a softmax (last); remove it: a network returns logits",
            ),
            (
                "ending(build(size, classes), keras.layers.Dense(7, 'softmax', name='last'))",
                "ends in a softmax (last); ",
            ),
            (
                "keras.Sequential([keras.layers.Input((size, size, 1)),"
                "ending(build(size, classes), keras.layers.Activation('softmax', name='last'))])",
                "ends in a softmax (last); ",
            ),
        ],
    )
    def test_a_model_with_other_inputs_or_outputs_is_refused(self, write_module, call, problem):
        module = write_module(
            f"{GOOD}\n"
            "def maps(size):\n"
            "    pixels = keras.Input((size, size, 1))\n"
            "    return keras.Model(pixels, keras.layers.Conv2D(7, 3, padding='same')(pixels))\n"
            "def two(size, classes):\n"
            "    pixels = keras.Input((size, size, 1))\n"
            "    flat = keras.layers.Flatten()(pixels)\n"
            "    return keras.Model(pixels, [flat, keras.layers.Dense(classes)(flat)])\n"
            "def ending(network, layer):\n"
            "    network.add(layer)\n"
            "    return network\n"
            f"def build_invalid(size, classes):\n    return {call}\n"
        )
        message = get_build_error(f"{module}.build_invalid", {})
        assert message.startswith(f"model.name: the model of {module}.build_invalid {problem}")

    def test_a_model_for_colour_images_is_refused(self, write_module):
        name = write_module(
            "import keras\n"
            "def build(size, classes):\n"
            "    layers = [keras.layers.Flatten(), keras.layers.Dense(classes)]\n"
            "    return keras.Sequential([keras.Input((size, size, 3)), *layers])\n"
        )
        message = get_build_error(name, {})
        assert message.startswith(
            f"model.name: the model of {name} does not accept images of shape (None, 28, 28, 1): "
        )

    def test_a_subclassed_model_is_accepted(self, write_module):
        module = write_module(
            "import keras\n"
            "class build(keras.Model):\n"
            "    def __init__(self, size, classes):\n"
            "        super().__init__()\n"
            "        self.logits = keras.layers.Dense(classes)\n"
            "    def call(self, images):\n"
            "        return self.logits(keras.ops.reshape(images, (-1, 28 * 28)))\n"
        )
        network = registry.build_network(module, 28, 7, {})
        assert network(np.zeros((2, 28, 28, 1), np.float32)).shape == (2, 7)


LAYERS = """
import keras

class Plain(keras.layers.Layer):
    def call(self, values):
        return 2 * values

@keras.saving.register_keras_serializable("own")
class Registered(Plain):
    pass

def build(size, classes, layer="Registered"):
    layer_class = {"Registered": Registered, "Plain": Plain}.get(layer)
    doubled = layer_class() if layer_class else keras.layers.Lambda(lambda values: 2 * values)
    return keras.Sequential([
        keras.Input((size, size, 1)), keras.layers.Flatten(), doubled, keras.layers.Dense(classes)
    ])
"""


def make_config(name: str, *overrides: str) -> Config:
    return load_config(None, [f"model.name={name}", "training.steps=2", *overrides])


class TestCustomLayers:
    def test_registered_layers_are_imported_when_the_model_is_loaded(
        self, write_module, easy_dataset, tmp_path
    ):
        name = write_module(LAYERS)
        model_info = train(str(easy_dataset), str(tmp_path / "run"), make_config(name))
        code = (
            "import sys, numpy as np\n"
            "from pathlib import Path\n"
            "from fer_pipeline.learning.inference.trained_model import TrainedModel\n"
            "trained = TrainedModel.open(Path('run'))\n"
            "model, network = trained.load_network(), trained.info.network\n"
            "print(network, float(model(np.ones((1, 16, 16, 1), np.float32)).numpy().sum()))\n"
        )
        root = Path(__file__).resolve().parents[3]
        process = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        network, total = process.stdout.split()
        assert network == model_info.network
        assert float(total) == pytest.approx(1, abs=1e-5)

    @pytest.mark.parametrize("layer", ["Plain", "Lambda"])
    def test_layers_that_cannot_be_loaded_are_refused_before_training(
        self, write_module, easy_dataset, tmp_path, layer
    ):
        name = write_module(LAYERS)
        config = make_config(name, f"model.options.layer={layer}")
        with pytest.raises(RunError) as error:
            train(str(easy_dataset), str(tmp_path / "run"), config)
        message = str(error.value)
        assert message.startswith(f"the model of {name} cannot be loaded: ")
        assert " need keras.saving.register_keras_serializable and get_config" in message
        assert message.endswith(" must not be Lambda layers")
        assert "\n" not in message
        assert not (tmp_path / "run").exists()


def get_build_warnings(name: str, caplog: pytest.LogCaptureFixture, **options: int) -> str:
    registry.build_network(name, 28, 7, options)
    return "\n".join(caplog.messages).removeprefix(f"{name}: ")


class TestStridedShortcuts:
    def test_a_strided_1x1_convolution_causes_a_warning(
        self, write_module, caplog, monkeypatch
    ) -> None:
        monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
        warning = get_build_warnings(write_module(STRIDED), caplog)
        assert warning.startswith("training may crash or silently go wrong in its 1x1 convolutions")
        assert "(shortcut)" in warning

    @pytest.mark.parametrize("options", [{"kernel": 3}, {"strides": 1}])
    def test_other_kernels_and_strides_cause_no_warning(
        self, write_module, caplog, options
    ) -> None:
        assert not get_build_warnings(write_module(STRIDED), caplog, **options)

    def test_without_onednn_there_is_no_warning(self, write_module, caplog, monkeypatch) -> None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
        assert not get_build_warnings(write_module(STRIDED), caplog)

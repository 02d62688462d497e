import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fer_pipeline.config import load_config
from fer_pipeline.errors import ConfigError, RunError
from fer_pipeline.learning.networks import registry
from fer_pipeline.pipelines.train import train


def refused(name, options):
    with pytest.raises(ConfigError) as error:
        registry.build_network(name, 28, 7, options)
    message = str(error.value)
    assert "\n" not in message
    return message


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
def own(tmp_path, monkeypatch):
    """Writes a module in the current folder and says by what name it is known there."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write(text):
        # Python imports a name once.
        package = tmp_path / f"own_{next(_numbers)}"
        package.mkdir()
        (package / "nets.py").write_text(text)
        return f"{package.name}.nets"

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


class TestOwnNetworks:
    def test_a_module_with_a_function_build(self, own):
        network = registry.build_network(own(GOOD), 12, 3, {})
        assert network.count_params() == 145 * 4 + 5 * 3
        assert network.output_shape == (None, 3)

    def test_a_function_by_its_own_name(self, own):
        assert registry.build_network(f"{own(GOOD)}.wide", 12, 3, {}).layers[1].units == 9

    def test_options(self, own):
        module = own(GOOD)
        assert registry.build_network(module, 12, 3, {"width": 2}).layers[1].units == 2
        assert registry.build_network(f"{module}.wide", 12, 3, {"width": 2}).layers[1].units == 2

    def test_a_package_with_a_function(self, own, tmp_path):
        module = own("")
        package = module.removesuffix(".nets")
        (tmp_path / package / "__init__.py").write_text(GOOD)
        assert registry.build_network(f"{package}.build", 12, 3, {}).output_shape == (None, 3)

    def test_one_of_ours_by_its_whole_name(self):
        network = registry.build_network(
            "fer_pipeline.learning.networks.architectures.system_a", 28, 7, {"hidden": 8}
        )
        assert network.name == "system_a"

    def test_the_path_is_left_as_it_was(self, own):
        before = list(sys.path)
        registry.build_network(own(GOOD), 12, 3, {})
        refused(own("1 / 0"), {})
        assert sys.path == before

    def test_a_file_here_does_not_take_the_place_of_an_installed_module(
        self, own, tmp_path, monkeypatch
    ):
        own(GOOD)
        (tmp_path / "colorsys.py").write_text(GOOD)
        # As if nobody had imported it yet.
        monkeypatch.delitem(sys.modules, "colorsys", raising=False)
        assert refused("colorsys.build", {}).startswith("model.name: colorsys (/")
        assert sys.modules["colorsys"].__file__ != str(tmp_path / "colorsys.py")

    def test_for_a_job_that_runs_in_another_folder(self, own, tmp_path):
        # As spark-submit does it: Python looks first where the job's file is, not where it runs.
        job = tmp_path / "jobs" / "job.py"
        job.parent.mkdir()
        job.write_text(
            "import sys\n"
            "from fer_pipeline.learning.networks import registry\n"
            "print(registry.build_network(sys.argv[1], 12, 3, {}).output_shape)\n"
        )

        def run(folder):
            return subprocess.run(
                [sys.executable, job, name],
                cwd=folder,
                env={**os.environ, "KERAS_BACKEND": "numpy"},
                capture_output=True,
                text=True,
                check=False,
            )

        name = own(GOOD)
        there = run(tmp_path)
        assert (there.stdout, there.returncode) == ("(None, 3)\n", 0), there.stderr
        elsewhere = run(job.parent)
        assert elsewhere.returncode == 1
        assert f"model.name: no module {name.split('.')[0]}" in elsewhere.stderr


class TestOwnNetworksRefused:
    @pytest.mark.parametrize("name", ["..bundle", "a..b", ".", "a.", "a.b-c", "a/b.py", "a.1b"])
    def test_no_dotted_name(self, name):
        message = refused(name, {})
        assert message.startswith(f"model.name: {name!r} is not a valid dotted name; ")
        assert "package.module or package.module.function" in message

    def test_no_such_module(self):
        message = refused("no_such.nets.build", {})
        assert message.startswith("model.name: no module no_such.nets for no_such.nets.build; ")
        assert "PYTHONPATH" in message

    def test_no_such_module_in_a_package(self, own):
        package = own(GOOD).removesuffix(".nets")
        message = refused(f"{package}.nits.build", {})
        assert message.startswith(f"model.name: no module {package}.nits for ")
        assert refused(f"{package}.nits", {}) == (
            f"model.name: {package} (a folder of modules) has no function nits; expected"
            " nits(size, classes, **options), which returns a keras.Model"
        )

    @pytest.mark.parametrize("function", ["NOT_CALLABLE", "none", "build.wide"])
    def test_no_such_function(self, own, function, tmp_path):
        module = own(GOOD)
        message = refused(f"{module}.{function}", {})
        if function == "build.wide":
            assert message.startswith(f"model.name: no module {module}.build for ")
        else:
            file = tmp_path / Path(*module.split(".")).with_suffix(".py")
            assert message == (
                f"model.name: {module} ({file}) has no function {function}; expected"
                f" {function}(size, classes, **options), which returns a keras.Model"
            )

    def test_a_module_without_build(self, own):
        message = refused(own("import keras"), {})
        assert "has no function build; expected build(size, classes, **options)" in message

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("x = 1\n1 / 0", "ZeroDivisionError: division by zero (FILE, line 2)"),
            ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
            ("from keras import layer", "ImportError: cannot import name 'layer' from 'keras'"),
            ("def build(:", "SyntaxError: invalid syntax (nets.py, line 1)"),
        ],
    )
    def test_an_import_that_fails(self, own, text, said, tmp_path):
        module = own(text)
        file = str(tmp_path / Path(*module.split(".")).with_suffix(".py"))
        message = refused(module, {})
        assert message.startswith(
            f"model.name: importing {module} failed: {said.replace('FILE', file)}"
        )

    def test_an_unknown_option(self, own):
        module = own(GOOD)
        message = f"model.options: {module} has no option height; its options are width"
        assert refused(module, {"height": 3}) == message

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("return undefined", "NameError: name 'undefined' is not defined (FILE, line 2)"),
            ("raise ValueError('too\\nsmall')", "ValueError: too small (FILE, line 2)"),
        ],
    )
    def test_a_function_that_fails(self, own, body, said, tmp_path):
        module = own(f"def build(size, classes):\n    {body}\n")
        file = str(tmp_path / Path(*module.split(".")).with_suffix(".py"))
        message = refused(module, {})
        assert message.startswith(f"model.name: {module} failed for 28x28 pixels and 7 classes: ")
        assert message.endswith(f": {said.replace('FILE', file)}")

    def test_a_function_of_other_arguments(self, own):
        message = refused(own("def build(size):\n    return size"), {})
        assert "TypeError: build() takes 1 positional argument but 2 were given" in message

    @pytest.mark.parametrize(("value", "kind"), [("None", "NoneType"), ("size", "int")])
    def test_no_model(self, own, value, kind):
        module = own(f"def build(size, classes):\n    return {value}\n")
        assert refused(module, {}) == (
            f"model.name: {module} returned {kind}, expected a keras.Model"
        )

    @pytest.mark.parametrize(
        ("call", "said"),
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
    def test_a_model_of_another_shape(self, own, call, said):
        module = own(
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
            f"def tried(size, classes):\n    return {call}\n"
        )
        message = refused(f"{module}.tried", {})
        assert message.startswith(f"model.name: the model of {module}.tried {said}")

    def test_a_model_for_colour(self, own):
        name = own(
            "import keras\n"
            "def build(size, classes):\n"
            "    layers = [keras.layers.Flatten(), keras.layers.Dense(classes)]\n"
            "    return keras.Sequential([keras.Input((size, size, 3)), *layers])\n"
        )
        message = refused(name, {})
        assert message.startswith(
            f"model.name: the model of {name} does not accept images of shape (None, 28, 28, 1): "
        )

    def test_a_model_that_is_no_graph_of_layers(self, own):
        module = own(
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
    made = {"Registered": Registered, "Plain": Plain}.get(layer)
    doubled = made() if made else keras.layers.Lambda(lambda values: 2 * values)
    return keras.Sequential([
        keras.Input((size, size, 1)), keras.layers.Flatten(), doubled, keras.layers.Dense(classes)
    ])
"""


class TestLayersOfOnesOwn:
    def settings(self, name, *more):
        return load_config(None, [f"model.name={name}", "training.steps=2", *more])

    def test_are_found_by_whoever_loads_the_model(self, own, easy_dataset, tmp_path):
        info = train(str(easy_dataset), str(tmp_path / "run"), self.settings(own(LAYERS)))
        code = (
            "import sys, numpy as np\n"
            "from pathlib import Path\n"
            "from fer_pipeline.learning.inference.trained_model import TrainedModel\n"
            "trained = TrainedModel.open(Path('run'))\n"
            "model, info = trained.load_network(), trained.info\n"
            "print(info.network, float(model(np.ones((1, 16, 16, 1), np.float32)).numpy().sum()))\n"
        )
        root = Path(__file__).resolve().parents[3]
        found = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        network, total = found.stdout.split()
        assert (network, float(total)) == (info.network, pytest.approx(1, abs=1e-5))

    @pytest.mark.parametrize("layer", ["Plain", "Lambda"])
    def test_that_could_not_be_loaded_are_refused_before_they_are_trained(
        self, own, easy_dataset, tmp_path, layer
    ):
        name = own(LAYERS)
        chosen = self.settings(name, f"model.options.layer={layer}")
        with pytest.raises(RunError) as error:
            train(str(easy_dataset), str(tmp_path / "run"), chosen)
        message = str(error.value)
        assert message.startswith(f"the model of {name} cannot be loaded: ")
        assert message.endswith(
            "; its custom layers need keras.saving.register_keras_serializable and get_config, and"
            " must not be Lambda layers"
        )
        assert "\n" not in message
        assert not (tmp_path / "run").exists()


class TestStridedShortcuts:
    def warned(self, own, caplog, **options) -> str:
        name = own(STRIDED)
        registry.build_network(name, 28, 7, options)
        return "\n".join(caplog.messages).removeprefix(f"{name}: ")

    def test_are_warned_of(self, own, caplog, monkeypatch) -> None:
        monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
        told = self.warned(own, caplog)
        assert told.startswith("training may crash or silently go wrong in its 1x1 convolutions")
        assert "(shortcut)" in told

    @pytest.mark.parametrize("options", [{"kernel": 3}, {"strides": 1}])
    def test_others_are_fine(self, own, caplog, options) -> None:
        assert not self.warned(own, caplog, **options)

    def test_without_onednn_they_are_fine(self, own, caplog, monkeypatch) -> None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
        assert not self.warned(own, caplog)

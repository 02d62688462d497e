import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fer_pipeline.config import Config, load_config
from fer_pipeline.data.emotions import FER2013
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import ConfigError, StorageError

CONF = Path(__file__).parents[2] / "conf"
USAGE = {
    "Training": Split.TRAIN,
    "PublicTest": Split.VALIDATION,
    "PrivateTest": Split.TEST,
    "train": Split.TRAIN,
    "validation": Split.VALIDATION,
    "val": Split.VALIDATION,
    "test": Split.TEST,
}


def list_problems(*overrides: str, path: Path | None = None) -> list[str]:
    """Return the problems in the error about a configuration."""
    with pytest.raises(ConfigError) as raised:
        load_config(path, overrides)
    message = str(raised.value).removeprefix(f"{path or 'configuration'}: ")
    return re.split(r"; (?!keep one)", message)


def list_leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the contents of a nested mapping by their dotted keys."""
    leaves: dict[str, Any] = {}
    for key, branch in tree.items():
        if isinstance(branch, dict):
            leaves |= list_leaves(branch, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = branch
    return leaves


@pytest.fixture
def write_config(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_defaults_are_those_of_fer2013():
    config = load_config(None)
    assert config == Config()
    assert config.class_names == list(FER2013)
    assert config.input.emotions == {str(code): name for code, name in enumerate(FER2013)}
    assert config.image.model_dump() == {
        "size": 48,
        "normalization": "centered",
        "dtype": "uint8",
        "enhancement": {"denoise": 0.0, "equalize": False, "local_contrast": False},
    }
    assert config.labels.model_dump() == {"votes": None, "target": "hard"}
    assert config.split.model_dump() == {
        "method": "usage",
        "usage_to_split": USAGE,
        "validation": 0.0,
        "test": 0.0,
        "deduplicate": True,
    }
    assert config.input.max_quarantined_fraction == 0.01
    assert (config.training.epochs, config.training.steps) == (10, None)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_value_of_a_shipped_configuration_is_loaded(path):
    config = load_config(path)
    leaves = list_leaves(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert leaves
    assert leaves == {key: list_leaves(config.to_dict())[key] for key in leaves}
    # It is not a copy of the defaults.
    assert config != Config()


def test_a_file_is_read_and_the_last_override_of_a_key_wins(write_config):
    path = write_config("seed: 3\nimage: {size: 28, dtype: float32}\n")
    config = load_config(path, ["image.size=64", "seed=4", "image.size=32"])
    assert (config.seed, config.image.size, config.image.dtype) == (4, 32, "float32")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "{}\n"])
def test_an_empty_file_gives_the_defaults(write_config, text):
    assert load_config(write_config(text)) == Config()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("image.size=28", {"image": {"size": 28}}),
        (" image . size = 28", {"image": {"size": 28}}),
        ("image={size: 28, dtype: float32}", {"image": {"size": 28, "dtype": "float32"}}),
        ("classes=[anger, sad]", {"classes": ["angry", "sad"]}),
        ("sampling.oversample.Disgusted=4", {"sampling": {"oversample": {"disgust": 4}}}),
        (
            "sampling.oversample={disgust: 4, joy: 1.5}",
            {"sampling": {"oversample": {"disgust": 4, "happy": 1.5}}},
        ),
        ("variants.rotations=[10, -7.5]", {"variants": {"rotations": [10, -7.5]}}),
        ("sampling.balance=true", {"sampling": {"balance": True}}),
        (
            "training.optimizer.learning_rate=1e-2",
            {"training": {"optimizer": {"learning_rate": 0.01}}},
        ),
        ("training.steps=16001", {"training": {"steps": 16001}}),
        ("output.files_per_split=null", {"output": {"files_per_split": None}}),
        ("output.files_per_split=", {"output": {"files_per_split": None}}),
        ("split.validation=null", {}),
        ("model.options.hidden=64", {"model": {"options": {"hidden": 64}}}),
        ("model.options={name: a=b}", {"model": {"options": {"name": "a=b"}}}),
        (
            "split.usage_to_split.PrivateTest=null",
            {"split": {"usage_to_split": {"PrivateTest": None}}},
        ),
        ("input.max_quarantined_fraction=0", {"input": {"max_quarantined_fraction": 0}}),
    ],
)
def test_an_override_is_a_dotted_key_and_a_yaml_value(override, expected):
    assert load_config(None, [override]) == Config.model_validate(expected)


def test_overrides_fill_the_empty_sections_of_a_file(write_config):
    path = write_config("image:\nmodel:\n  options:\nsplit: {usage_to_split: }\n")
    overrides = ["image.size=28", "model.options.hidden=64", "split.usage_to_split.Training=test"]
    config = load_config(path, [*overrides, "training.steps=5"])
    assert config.image.size == 28
    assert config.model.options == {"hidden": 64}
    assert config.split.usage_to_split == {**USAGE, "Training": Split.TEST}
    assert (config.training.steps, config.training.epochs) == (5, None)


def test_overrides_keep_the_other_keys_of_a_section(write_config):
    path = write_config(
        "split: {usage_to_split: {PublicTest: test}, validation: 0.2}\n"
        "sampling: {oversample: {sad: 2}}\n"
    )
    config = load_config(
        path, ["split.usage_to_split.PrivateTest=null", "sampling.oversample.fear=3"]
    )
    assert config.split.usage_to_split == {**USAGE, "PublicTest": Split.TEST, "PrivateTest": None}
    assert config.split.validation == 0.2
    assert config.sampling.oversample == {"sad": 2, "fear": 3}


@pytest.mark.parametrize("override", ["seed", "", "=3", "image.=3", ".size=3", "image..size=3"])
def test_an_override_without_key_or_value_is_refused(override):
    assert list_problems(override) == [
        f"--set {override}: expected key=value, such as image.size=28"
    ]


def test_an_override_that_is_not_yaml_is_refused():
    assert list_problems("classes=[sad") == ["--set classes=[sad: '[sad' is not a YAML value"]


@pytest.mark.parametrize("text", ["2024-02-30", "0x_", "!!int x"])
def test_yaml_without_a_valid_value_is_refused(write_config, text):
    assert list_problems(f"seed={text}") == [f"--set seed={text}: {text!r} is not a YAML value"]
    with pytest.raises(ConfigError, match=r"config\.yaml: is not valid YAML"):
        load_config(write_config(f"seed: {text}\n"))


@pytest.mark.parametrize("text", ["image: [", "a: b: c", "\t- x", "'", "a: !!python/name:os x"])
def test_a_file_that_is_not_yaml_is_refused_in_one_line(write_config, text):
    with pytest.raises(ConfigError, match=r"config\.yaml: is not valid YAML: ") as raised:
        load_config(write_config(text))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("text", "kind"), [("[1, 2]", "list"), ("hello", "str"), ("7", "int")])
def test_a_file_without_keys_is_refused(write_config, text, kind):
    assert list_problems(path=write_config(text)) == [f"expected sections with keys, got {kind}"]


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(StorageError, match="no such file"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("imag.size=3", "imag: unknown key, did you mean image?"),
        ("image.sise.x=3", "image.sise: unknown key, did you mean image.size?"),
        ("image.sise=3", "image.sise: unknown key, did you mean image.size?"),
        (
            "image.normalisation=unit",
            "image.normalisation: unknown key, did you mean image.normalization?",
        ),
        ("training.epoch=3", "training.epoch: unknown key, did you mean training.epochs?"),
        (
            "image.colour=1",
            "image.colour: unknown key, expected one of size, normalization, dtype, enhancement",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_key(override, problem):
    assert list_problems(override) == [f"--set {problem}"]


@pytest.mark.parametrize(
    ("override", "start"),
    [
        ("image.size=7", "image.size: "),
        ("image.size=513", "image.size: "),
        ("image.size=48.5", "image.size: "),
        ("image.size=large", "image.size: "),
        ("image.dtype=uint16", "image.dtype: "),
        ("image.normalization=centred", "image.normalization: "),
        ("image.enhancement.denoise=-1", "image.enhancement.denoise: "),
        ("image.enhancement.denoise=.nan", "image.enhancement.denoise: "),
        ("image.enhancement.denoise=.inf", "image.enhancement.denoise: "),
        ("image.enhancement.denoise=true please", "image.enhancement.denoise: "),
        ("image.enhancement.equalize=2", "image.enhancement.equalize: "),
        ("image.enhancement=local_contrast", "image.enhancement: "),
        ("labels.target=crisp", "labels.target: "),
        ("labels.votes=''", "labels.votes: "),
        ("labels.votes=[a.csv]", "labels.votes: "),
        ("input.format=cvs", "input.format: "),
        ("input.max_quarantined_fraction=1.01", "input.max_quarantined_fraction: "),
        ("input.max_quarantined_fraction=-0.1", "input.max_quarantined_fraction: "),
        ("input.max_quarantined_fraction=.nan", "input.max_quarantined_fraction: "),
        ("input.emotions={0: angry, 1: foo}", "input.emotions.1: "),
        ("classes=sad", "classes: "),
        ("classes=[sad, foo]", "classes.1: "),
        ("split.method=random", "split.method: "),
        ("split.validation=1", "split.validation: "),
        ("split.validation=-0.1", "split.validation: "),
        ("split.test=.inf", "split.test: "),
        ("split.usage_to_split.Training=training", "split.usage_to_split.Training: "),
        ("sampling.oversample.disgust=0.5", "sampling.oversample.disgust: "),
        ("sampling.oversample.foo=2", "sampling.oversample.foo"),
        ("variants.rotations=10", "variants.rotations: "),
        ("variants.rotations=[360]", "variants.rotations.0: "),
        ("variants.rotations=[.nan]", "variants.rotations.0: "),
        ("variants.rotations=[10, 10.0]", "variants.rotations: contains an angle twice"),
        ("variants.rotations=[0]", "variants.rotations: an angle of 0 is the image itself"),
        ("variants.border=wrap", "variants.border: "),
        ("output.files_per_split=0", "output.files_per_split: "),
        ("output.compression=gzip", "output.compression: "),
        ("training.optimizer.learning_rate=0", "training.optimizer.learning_rate: "),
        ("training.optimizer.learning_rate=.inf", "training.optimizer.learning_rate: "),
        ("training.steps=0", "training.steps: "),
        ("training.validate_every_steps=-1", "training.validate_every_steps: "),
        ("loader.batch_size=0", "loader.batch_size: "),
        ("seed=-1", "seed: "),
        ("seed=2147483648", "seed: "),
        ("seed=", "seed: "),
        ("image=28", "image: "),
    ],
)
def test_an_invalid_value_is_refused_with_its_key(override, start):
    (problem,) = list_problems(override)
    assert problem.startswith(f"--set {start}")


def test_an_unknown_emotion_is_refused_with_the_nearest_name():
    assert list_problems("classes=[sad, hapy]") == [
        "--set classes.1: unknown emotion 'hapy': did you mean happy?, got 'hapy'"
    ]


def test_all_wrong_keys_and_values_are_named_at_once(write_config):
    path = write_config(
        "sed: 1\n"
        "image: {size: 4, sise: 3}\n"
        "split: {method: random, validation: 2}\n"
        "classes: [sad, foo]\n"
        "training: {epochs: 3, steps: 2}\n"
        "variants: {rotations: [10, 10]}\n"
    )
    problems = list_problems("sampling.oversample.disgust=0.5", path=path)
    assert sorted(problem.split(": ")[0] for problem in problems) == [
        "--set sampling.oversample.disgust",
        "classes.1",
        "image.sise",
        "image.size",
        "sed",
        "split.method",
        "split.validation",
        "training",
        "variants.rotations",
    ]


def test_contradictions_are_named_beside_wrong_values():
    assert sorted(
        list_problems("sampling.balance=true", "sampling.oversample.sad=2", "image.size=4")
    ) == [
        "--set image.size: Input should be greater than or equal to 8, got 4",
        "sampling.balance and sampling.oversample are both set; keep one",
    ]


def test_all_contradictions_are_named_at_once():
    assert sorted(
        list_problems(
            "sampling.balance=true", "sampling.oversample.fear=2", "classes=[sad, sad, contempt]"
        )
    ) == [
        "classes contains contempt, which is not among input.emotions",
        "classes contains sad twice",
        "sampling.balance and sampling.oversample are both set; keep one",
        "sampling.oversample contains fear, which is not among the classes",
    ]


def test_all_wrong_overrides_are_named_at_once():
    message = "; ".join(list_problems("seed", "image.size=4", "classes=[sad"))
    for part in ("--set seed:", "--set image.size: ", "--set classes=[sad:"):
        assert part in message


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["classes=[sad, sadness]"], "classes contains sad twice"),
        (["classes=[sad]"], "classes must contain two or more emotions"),
        (["input.emotions={}"], "classes must contain two or more emotions"),
        (["input.emotions=[joy, happy]"], "classes must contain two or more emotions"),
        (
            ["classes=[sad, contempt]"],
            "classes contains contempt, which is not among input.emotions",
        ),
        (
            ["labels.target=soft"],
            "labels: target: soft needs votes, the path of a CSV",
        ),
        (
            ["classes=[sad, fear]", "sampling.oversample.disgust=4"],
            "sampling.oversample contains disgust, which is not among the classes",
        ),
        (
            ["split.validation=0.6", "split.test=0.4"],
            "split: validation + test = 1 leaves nothing to train on",
        ),
        (
            ["split.method=stratified", "split.validation=0", "split.test=0"],
            "split: method: stratified needs a validation or test fraction above 0",
        ),
    ],
)
def test_contradictions_are_refused(overrides, problem):
    assert list_problems(*overrides) == [problem]


def test_votes_may_have_a_class_that_the_source_lacks():
    config = load_config(
        None, ["labels.votes=v.csv", "classes=[sad, contempt]", "sampling.oversample.contempt=9"]
    )
    assert config.class_names == ["sad", "contempt"]
    # By default the votes do not add a class.
    assert load_config(None, ["labels.votes=v.csv"]).class_names == list(FER2013)


def test_a_misspelt_enhancement_is_refused_with_the_nearest_key():
    assert list_problems("image.enhancement.equalise=true") == [
        "--set image.enhancement.equalise: unknown key, did you mean image.enhancement.equalize?"
    ]


def test_an_empty_enhancement_section_gives_the_defaults(write_config):
    assert load_config(write_config("image:\n  enhancement:\n")) == Config()


def test_balance_and_oversample_exclude_each_other():
    assert list_problems("sampling.balance=true", "sampling.oversample.sad=2") == [
        "sampling.balance and sampling.oversample are both set; keep one"
    ]


def test_epochs_and_steps_exclude_each_other():
    assert list_problems("training.epochs=1", "training.steps=2") == [
        "training: epochs and steps are both set; keep one, and set the other to null, as in"
        " --set training.steps=null"
    ]


@pytest.mark.parametrize("text", ["{anger: 2, angry: 3}", "{happy: 2, joy: 2}"])
def test_an_emotion_under_two_names_is_refused(text):
    (problem,) = list_problems(f"sampling.oversample={text}")
    assert problem.startswith("--set sampling.oversample: ")


@pytest.mark.parametrize(
    ("overrides", "validation", "test"),
    [
        ([], 0.0, 0.0),
        (["split.method=usage", "split.validation=0.1"], 0.1, 0.0),
        (["split.method=stratified"], 0.1, 0.1),
        (["split.method=stratified", "split.validation=0.2"], 0.2, 0.1),
        (["split.method=stratified", "split.validation=0"], 0.0, 0.1),
        (["split.method=stratified", "split.validation=null", "split.test=0"], 0.1, 0.0),
    ],
)
def test_the_default_fractions_depend_on_the_split_method(overrides, validation, test):
    split = load_config(None, overrides).split
    assert (split.validation, split.test) == (validation, test)


@pytest.mark.parametrize(
    "text", ["[anger, disgust, sadness]", "{0: angry, 1: Disgust, 2: sad}", "[ANGRY, disgust, sad]"]
)
def test_codes_are_a_list_or_a_mapping(text):
    config = load_config(None, [f"input.emotions={text}"])
    assert config.input.emotions == {"0": "angry", "1": "disgust", "2": "sad"}
    assert config.class_names == ["angry", "disgust", "sad"]


def test_several_codes_may_mean_one_emotion():
    config = load_config(None, ["input.emotions={a: sad, b: happy, c: sadness}"])
    assert config.input.emotions == {"a": "sad", "b": "happy", "c": "sad"}
    assert config.class_names == ["sad", "happy"]


def test_classes_keep_their_own_order():
    override = "classes=[anger, disgust, sad, surprise, happiness]"
    expected = ["angry", "disgust", "sad", "surprise", "happy"]
    assert load_config(None, [override]).class_names == expected


@pytest.mark.parametrize("name", ["publictest", "PUBLICTEST", "PublicTest"])
def test_a_usage_replaces_its_default_in_any_case(name):
    expected = {key: split for key, split in USAGE.items() if key != "PublicTest"}
    config = load_config(None, [f"split.usage_to_split.{name}=test"])
    assert config.split.usage_to_split == {**expected, name: Split.TEST}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["split.method=stratified", "split.test=0", "image.normalization=standard"],
        ["training.steps=16001", "training.validate_every_steps=2000", "image.dtype=float32"],
        ["classes=[anger, sad]", "sampling.oversample={anger: 1.7, sad: 4}", "seed=7"],
        [
            "sampling.balance=true",
            "variants={flip: true, rotations: [10, -7.5], border: reflect}",
        ],
        ["input.emotions=[angry, disgust, sad, surprise, happy]", "input.format=csv"],
        ["split.usage_to_split={Training: train, PublicTest: test, PrivateTest: null}"],
        ["model={name: other, options: {hidden: 64, rates: [0.30000000000000004], more: null}}"],
        [
            "output={files_per_split: 3, row_group_rows: 100, compression: none}",
            "loader.cache_in_memory=true",
        ],
        ["training.optimizer.learning_rate=0.1", "split.validation=0.30000000000000004"],
    ],
)
def test_a_written_configuration_is_loaded_again(tmp_path, overrides):
    config = load_config(None, overrides)
    path = tmp_path / "out" / "config.yaml"
    config.write(path)
    assert load_config(path) == config
    assert (
        load_config(path).to_dict()
        == config.to_dict()
        == yaml.safe_load(path.read_text(encoding="utf-8"))
    )
    assert Config.model_validate(config.to_dict()) == config


def test_a_configuration_cannot_be_changed():
    config = load_config(None)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        config.image.size = 28  # type: ignore[misc]

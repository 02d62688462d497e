"""Runs each Python example of the documentation on a tiny dataset, model and scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fer_pipeline.config import Config
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.scores import ScoreFile, ScoreManifest
from fer_pipeline.io.output_kinds import SCORES_FILE
from fer_pipeline.learning.inference import serving_model
from fer_pipeline.learning.networks import registry
from tests.helpers import documents, finished_run, portraits, stored_datasets
from tests.helpers.documents import ROOT
from tests.helpers.stored_datasets import make_easy_rows

CLASSES = ("angry", "happy", "sad")


def read_examples(document: str, language: str = "python") -> list[str]:
    """Return the code blocks of a document in a language."""
    blocks = documents.read_code_blocks(document)
    return [block.code for block in blocks if block.language == language]


def list_documents_with_examples() -> list[str]:
    """Return the pages with Python blocks, without the tutorials, which a slow test runs."""
    pages = (*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "jobs").glob("*.md"))
    names = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in pages)]
    return [name for name in names if read_examples(name)]


def write_scores(folder: Path) -> None:
    """Write the scores of two images, one of them unreadable, and a file of an interrupted job."""
    folder.mkdir(parents=True)
    table = pa.table(
        {
            "source": ["a.png", "b.png"],
            "emotion": ["happy", None],
            "confidence": [0.9, None],
            "reason": [None, "x"],
        }
    )
    for name in ("scores-0.parquet", "scores-interrupted.parquet"):
        pq.write_table(table, folder / name)
    manifest = ScoreManifest(
        images=2,
        scored=1,
        emotions={"happy": 1},
        unscored={"x": 1},
        files=[ScoreFile(path="scores-0.parquet", rows=2, bytes=0)],
        model={},
        backend={},
        flip_tta=False,
        min_confidence=0.0,
        versions={},
        created="2024-05-06T07:08:09+00:00",
    )
    (folder / SCORES_FILE).write_text(manifest.model_dump_json())


def write_run(folder: Path, size: int) -> None:
    """Write a finished run of an untrained network."""
    network = keras.Sequential(
        [keras.Input((size, size, 1)), keras.layers.Flatten(), keras.layers.Dense(len(CLASSES))]
    )
    model = serving_model.build_serving_model(network, size, Normalization.centered())
    finished_run.save(folder, model, CLASSES)


@pytest.fixture(scope="module")
def home(easy_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset, run and scores that the documents name."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "data").mkdir()
    (folder / "data" / "a").symlink_to(easy_dataset)
    if not (easy_dataset / "config.yaml").exists():
        Config().write(easy_dataset / "config.yaml")
    write_run(folder / "runs" / "a", size=16)
    write_scores(folder / "scores" / "a")
    for name in ("photo.jpg", "other.jpg"):
        photograph = portraits.encode(portraits.load_astronaut(), "JPEG")
        (folder / name).write_bytes(photograph)
    return folder


@pytest.fixture
def float32_home(home: Path, tmp_path: Path) -> Path:
    """A folder as `home`, with the images in float32, the type that `conf/system_a.yaml` sets."""
    sizes = {"train": 115, "validation": 40, "test": 20}
    splits = {name: make_easy_rows(count, 10 + count) for name, count in sizes.items()}
    dataset = stored_datasets.write_dataset(tmp_path / "data" / "a", splits, dtype="float32")
    Config().write(dataset / "config.yaml")
    for name in ("runs", "scores", "photo.jpg", "other.jpg"):
        (tmp_path / name).symlink_to(home / name)
    return tmp_path


@pytest.fixture
def run_examples(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    monkeypatch.chdir(home)

    def run(document: str) -> dict[str, Any]:
        namespace: dict[str, Any] = {}
        for example in read_examples(document):
            exec(compile(example, document, "exec"), namespace)
        return namespace

    return run


@pytest.mark.parametrize("document", list_documents_with_examples())
def test_every_example_runs(document, run_examples):
    run_examples(document)


def test_the_examples_of_the_python_api_read_what_the_jobs_wrote(run_examples):
    names = run_examples("docs/python_api.md")
    assert names["dataset"].row_counts == {"train": 115, "validation": 40, "test": 20}
    assert len(names["table"]) == 20
    assert names["images"].shape == (32, 16, 16, 1)
    assert names["probabilities"].shape == (1, 3)
    np.testing.assert_allclose(names["probabilities"].sum(), 1, rtol=1e-6)
    assert len(names["scores"]) == 2
    assert names["scored"]["emotion"].tolist() == ["happy"]
    assert names["faces"]["source"].tolist() == ["photo.jpg", "other.jpg"]
    assert names["config"].image.size == 28


def test_the_examples_of_the_python_api_run_on_a_float32_dataset(
    run_examples, float32_home, monkeypatch
):
    expected = run_examples("docs/python_api.md")["pixels"]
    monkeypatch.chdir(float32_home)
    names = run_examples("docs/python_api.md")
    assert names["dataset"].manifest.image.dtype == "float32"
    assert names["pixels"].dtype == np.uint8
    np.testing.assert_array_equal(names["pixels"], expected)
    assert names["probabilities"].shape == (1, 3)


def test_the_pages_for_python_users_have_examples():
    assert len(read_examples("docs/python_api.md")) >= 6
    pages = {"README.md", "docs/dataset_format.md", "docs/jobs/score.md", "docs/networks.md"}
    assert pages <= set(list_documents_with_examples())


def test_the_custom_network_of_the_documents_can_be_trained(home, monkeypatch):
    (code,) = read_examples("docs/networks.md")
    module = home / "my_networks" / "small.py"
    module.parent.mkdir()
    module.write_text(code)
    monkeypatch.chdir(home)
    selection, _ = read_examples("docs/networks.md", "yaml")
    model = Config.model_validate(yaml.safe_load(selection)).model
    network = registry.build_network(model.name, 16, len(CLASSES), model.options)
    assert network.output_shape == (None, len(CLASSES))
    assert network.layers[0].filters == 32

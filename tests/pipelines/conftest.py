"""Fixtures of several test files that take seconds to set up."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_pipeline.learning.inference.trained_model import ModelInfo
from fer_pipeline.pipelines.train import train
from tests.helpers.training import make_config


@pytest.fixture(scope="session")
def trained_run(
    easy_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ModelInfo]:
    """A finished run and the description that `train` returned."""
    folder = tmp_path_factory.mktemp("trained") / "a" / "run"
    return folder, train(str(easy_dataset), str(folder), make_config())

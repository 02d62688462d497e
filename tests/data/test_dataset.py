"""A dataset on disk."""

from __future__ import annotations

import dataclasses

import numpy as np

from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from tests.helpers.stored_datasets import make_faces, write_dataset


def test_a_warning_is_logged_about_a_split_of_one_class(tmp_path, caplog) -> None:
    several = make_faces(8, 0)
    all_happy = dataclasses.replace(several, labels=np.ones(8, np.int32))
    write_dataset(tmp_path / "d", {"train": several, "validation": all_happy})
    dataset = StoredDataset.open(tmp_path / "d")

    for split in Split:
        dataset.warn_about_single_class(split)

    assert caplog.messages == [
        f"{tmp_path}/d: all images of the validation split are of one class, happy; a constant"
        " prediction has an accuracy of 100 % there"
    ]

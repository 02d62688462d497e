"""A dataset from photographs: the largest face of each is found and aligned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fer_pipeline.data.image_decoding import DecodingOptions
from fer_pipeline.errors import InputError
from fer_pipeline.faces.photographs import FaceOptions, find_single_face
from tests.helpers import portraits
from tests.helpers.fer_csv import format_row, make_image, write_csv
from tests.helpers.preprocessed import Prepare

DETECT = {"faces": "detect", "max_quarantined_fraction": 0.9}


def test_the_largest_face_of_each_photograph_is_kept(prepare: Prepare, tmp_path: Path) -> None:
    astronaut = portraits.load_astronaut()
    pictures = {
        "happy/one.png": astronaut,
        "happy/two.png": np.hstack([astronaut, astronaut]),
        "sad/none.png": portraits.make_faceless(),
        "sad/turned.png": portraits.rotate(astronaut, 20),
    }
    for name, picture in pictures.items():
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(portraits.encode(picture))

    prepared = prepare(tmp_path, input=DETECT, image={"size": 48})

    expected = {
        name: find_single_face(
            portraits.encode(pictures[name]), DecodingOptions(), FaceOptions("detect")
        ).image
        for name in ("happy/one.png", "sad/turned.png")
    }
    rows = {"/".join(Path(row["source"]).parts[-2:]): row for row in prepared.rows}
    assert rows.keys() == expected.keys()
    for name, image in expected.items():
        assert image is not None
        assert rows[name]["image"] == image.tobytes()
        assert rows[name]["emotion"] == name.split("/")[0]
    assert {Path(row["source"]).name: row["reason"] for row in prepared.quarantine} == {
        "two.png": "several faces",
        "none.png": "no face",
    }
    assert prepared.manifest.rows.read == 4


def test_a_csv_has_no_photographs(prepare: Prepare, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "faces.csv", [format_row(0, make_image(1))])
    with pytest.raises(InputError, match=r"prepare it with input\.faces: crop"):
        prepare(path, input=DETECT)

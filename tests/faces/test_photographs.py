"""Faces of files: what is a crop and what a photograph, and how each is described."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fer_pipeline.data.image_decoding import DecodedFile, DecodingOptions, decode_file
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.faces.detectors import DetectorOptions
from fer_pipeline.faces.photographs import (
    FaceMode,
    FaceOptions,
    find_faces_in_file,
    find_faces_in_image,
    find_single_face,
)
from fer_pipeline.io.file_parts import Unreadable
from tests.helpers import portraits
from tests.helpers.portraits import FACE

DECODING = DecodingOptions()


def find(content: bytes, mode: FaceMode = "auto", min_quality: float = 0) -> list[DecodedFile]:
    """Return what is found in a file."""
    return find_faces_in_file(content, DECODING, FaceOptions(mode, min_quality=min_quality))


def cut_face(margin: float = 0.0) -> portraits.Picture:
    """Return the astronaut's face with a margin, as a fraction of its height."""
    left, top, width, height = FACE
    extra = margin * height
    rows = slice(round(top - extra), round(top + height + extra))
    return portraits.load_astronaut()[rows, round(left - extra) : round(left + width + extra)]


def test_a_photograph_gives_an_aligned_face_with_its_position() -> None:
    [file] = find(portraits.encode(portraits.load_astronaut()))
    assert file.problem is None
    assert file.image is not None
    assert file.image.shape == (48, 48)
    assert file.face is not None
    assert file.face.face == 0
    assert portraits.compute_overlap(file.face[1:5], FACE) > 0.6


def test_every_face_of_a_photograph_is_found() -> None:
    pair = np.hstack([portraits.load_astronaut()] * 2)
    files = find(portraits.encode(pair))
    assert [file.face and file.face.face for file in files] == [0, 1]
    assert {round((file.face.left - FACE[0]) / 512) for file in files if file.face} == {0, 1}


def test_a_small_image_is_a_crop_and_is_decoded_as_ever() -> None:
    content = portraits.encode(portraits.resize(cut_face(), 0.5))
    [file] = find(content)
    assert file.face is None
    assert file.image is not None
    np.testing.assert_array_equal(file.image, decode_file(content, DECODING).image)


def test_a_large_image_that_a_face_fills_is_a_crop() -> None:
    content = portraits.encode(portraits.resize(cut_face(0.1), 3))
    [file] = find(content)
    assert file.face is None
    np.testing.assert_array_equal(file.image, decode_file(content, DECODING).image)
    [detected] = find(content, "detect")
    assert detected.face is not None


def test_the_mode_crop_takes_a_photograph_as_it_is() -> None:
    content = portraits.encode(portraits.load_astronaut())
    [file] = find(content, "crop")
    assert file.face is None
    np.testing.assert_array_equal(file.image, decode_file(content, DECODING).image)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_photograph_without_a_face_has_a_reason(kind: str) -> None:
    [file] = find(portraits.encode(portraits.make_faceless(), kind))
    assert file.image is None
    assert file.problem == (Outcome.FACE_NOT_FOUND, "400x300 pixels")


def test_files_without_an_image_keep_their_reason() -> None:
    [unreadable] = find_faces_in_file(Unreadable("permission denied"), DECODING, FaceOptions())
    assert unreadable.problem == (Outcome.UNREADABLE_FILE, "permission denied")
    [damaged] = find(portraits.encode(portraits.load_astronaut())[:5000])
    assert damaged.problem is not None
    assert damaged.problem[0] == Outcome.UNDECODABLE_IMAGE


def test_a_face_of_low_quality_is_refused_but_described() -> None:
    small = portraits.encode(portraits.resize(portraits.load_astronaut(), 0.3))
    [accepted] = find(small)
    [refused] = find(small, min_quality=0.9)
    assert accepted.problem is None
    assert refused.problem is not None
    assert refused.problem[0] == Outcome.LOW_QUALITY
    assert "inference.min_quality is 0.9" in refused.problem[1]
    assert refused.face == accepted.face


def test_a_large_jpeg_is_reduced_without_moving_the_face() -> None:
    large = portraits.paste(
        portraits.resize(portraits.load_astronaut(), 2), 4000, 3000, left=1500, top=900
    )
    [from_jpeg] = find(portraits.encode(large, "JPEG", quality=95))
    [from_png] = find(portraits.encode(large, "PNG"))
    assert from_jpeg.face is not None
    assert from_png.face is not None
    np.testing.assert_allclose(from_jpeg.face[1:5], from_png.face[1:5], atol=8)
    difference = np.abs(from_jpeg.image.astype(int) - from_png.image)  # type: ignore[union-attr]
    assert difference.mean() < 8


def test_a_small_face_of_a_large_jpeg_is_cut_out_at_full_size() -> None:
    # At an eighth of the size, of which the search needs no more, the face would have 13 pixels.
    large = portraits.paste(portraits.load_astronaut(), 4000, 3000, left=2000, top=1000)
    [file] = find(portraits.encode(large, "JPEG", quality=95))
    assert file.face is not None
    assert file.face.sharpness > 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_in_the_metadata_is_applied(orientation: int) -> None:
    turned = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](portraits.load_astronaut())
    exif = Image.Exif()
    exif[0x0112] = orientation
    [file] = find(portraits.encode(np.ascontiguousarray(turned), "JPEG", exif=exif, quality=95))  # type: ignore[arg-type]
    assert file.face is not None
    assert portraits.compute_overlap(file.face[1:5], FACE) > 0.6


def test_transparent_and_grey_photographs_are_searched() -> None:
    astronaut = portraits.load_astronaut()
    opaque = np.dstack([astronaut, np.full((512, 512), 255, np.uint8)])
    for picture in (opaque, astronaut.mean(axis=2).astype(np.uint8)):
        [file] = find(portraits.encode(picture))
        assert file.face is not None


def test_an_array_gives_what_its_file_gives() -> None:
    for picture in (portraits.load_astronaut(), portraits.make_faceless(), cut_face()):
        [from_file] = find(portraits.encode(picture))
        [from_array] = find_faces_in_image(picture, FaceOptions())
        assert from_array.face == from_file.face
        assert from_array.problem == from_file.problem


class TestSingleFace:
    def find(self, picture: portraits.Picture) -> DecodedFile:
        """Return the single face of a picture."""
        return find_single_face(portraits.encode(picture), DECODING, FaceOptions("detect"))

    def test_the_only_face_is_returned(self) -> None:
        file = self.find(portraits.load_astronaut())
        assert file.face is not None
        assert file.problem is None

    def test_a_face_in_the_background_does_not_matter(self) -> None:
        astronaut = portraits.load_astronaut()
        scene = portraits.paste(portraits.resize(astronaut, 0.4), 512, 512, 150, 200)
        file = self.find(np.hstack([scene, astronaut]))
        assert file.face is not None
        assert file.face.left > 512

    def test_two_faces_of_similar_size_are_a_problem(self) -> None:
        file = self.find(np.hstack([portraits.load_astronaut()] * 2))
        assert file.image is None
        assert file.problem == (
            Outcome.SEVERAL_FACES,
            "2 of 2 faces are more than half as high as the largest",
        )

    def test_no_face_is_a_problem(self) -> None:
        file = self.find(portraits.make_faceless())
        assert file.problem == (Outcome.FACE_NOT_FOUND, "400x300 pixels")


def test_options_of_the_detector_are_used() -> None:
    options = FaceOptions("detect", DetectorOptions(min_size=200))
    content = portraits.encode(portraits.load_astronaut())
    [file] = find_faces_in_file(content, DECODING, options)
    assert file.problem is not None

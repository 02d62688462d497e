"""Damaged files of every kind: no crash, no hang, no lost record.

`make fuzz` tries 10,000 files of each kind, `make test` a few hundred.
"""

import functools
import random

import numpy as np
import pytest

from fer_pipeline.data.decoder_process import DecoderProcess
from fer_pipeline.data.fer_csv import RequiredColumns
from fer_pipeline.data.image_decoding import DecodedFile, DecodingOptions, decode_file
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.data.pixel_strings import MIN_SIZE
from fer_pipeline.data.synthetic.files import write_csv
from fer_pipeline.errors import InputError
from fer_pipeline.io.file_parts import FileContent, FilePart
from fer_pipeline.spark.read_records import SourceRecords, count_csv_records, read_csv_records
from tests.helpers.image_files import damage, decode, encode_all

LARGEST = 1_000_000
CHECKED = ("png", "avif")
"""Formats with checksums, or whose decoder refuses all damage."""


def is_similar(image: np.ndarray, sound_image: np.ndarray) -> bool:
    """Return whether at most 1 % of the pixels differ by more than 16 grey levels."""
    if image.shape != sound_image.shape:
        return False
    return bool((np.abs(image.astype(int) - sound_image) > 16).mean() <= 0.01)


@pytest.fixture(scope="module")
def file_count(pytestconfig):
    return pytestconfig.getoption("--fuzz")


def test_damaged_images_are_refused_or_decoded(file_count):
    rng = random.Random(0)
    names = list(encode_all())
    cases = [names[n % len(names)] for n in range(file_count)]
    contents = [damage(encode_all()[name], rng) for name in cases]
    function = functools.partial(decode_file, options=DecodingOptions(max_pixels=LARGEST))
    decoder = DecoderProcess[FileContent, DecodedFile](function, time_limit=20)
    decoded_files = list(decoder.map(contents))
    decoder.close()
    assert len(decoded_files) == file_count
    for name, content, decoded in zip(cases, contents, decoded_files, strict=True):
        assert isinstance(decoded, DecodedFile), (name, content, decoded)
        assert (decoded.image is None) == (decoded.problem is not None)
        if decoded.image is not None:
            assert decoded.image.dtype == np.uint8
            assert MIN_SIZE <= min(decoded.image.shape) <= decoded.image.size <= LARGEST
            if name.startswith(CHECKED):
                assert is_similar(decoded.image, decode(encode_all()[name])), name


def read_records(part: FilePart) -> list[SourceRecords] | InputError:
    """Return the records of a part of a CSV file, or the error that ends a job."""
    required = RequiredColumns(emotion=True, usage=True)
    try:
        return [batch for group in read_csv_records([part], {}, required) for batch in group]
    except InputError as error:
        return error


def test_records_of_damaged_csv_files_are_counted_in_full(file_count, tmp_path):
    rng = random.Random(0)
    write_csv(tmp_path / "sound.csv", rows=3, seed=1)
    sound_content = (tmp_path / "sound.csv").read_bytes()
    path = tmp_path / "damaged.csv"
    read_count = 0
    for _ in range(file_count):
        path.write_bytes(damage(sound_content, rng))
        for start, end in ((0, None), (0, len(sound_content) // 2)):
            part = FilePart(str(path), -1, start=start, end=end)
            [(_, _, expected)] = count_csv_records([part])
            records = read_records(part)
            if isinstance(records, InputError):
                assert str(path) in str(records)
                continue
            assert sum(len(batch) for batch in records) == expected
            for batch in records:
                errors = batch.parsed.errors
                assert len(errors.details) == (errors.outcomes != Outcome.KEPT).sum()
            read_count += 1
    assert read_count > file_count // 2

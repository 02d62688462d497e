"""Forms of FER2013's CSV, and paths of the input."""

from __future__ import annotations

import bz2
import gzip
import logging
from collections.abc import Callable, Sequence

import pytest

from fer_pipeline.data.image_preparation import resize
from fer_pipeline.errors import InputError
from tests.helpers.fer_csv import format_row, make_image, write_csv
from tests.helpers.preprocessed import build_expected_row

USAGES = ("Training", "PublicTest", "PrivateTest")
SPLITS = dict(zip(USAGES, ("train", "validation", "test"), strict=True))

# Three rows of (code, pixels, usage).
Cells = list[tuple[int, str, str]]


def _format_plain(
    rows: Sequence[tuple[int | str, str, str]],
    header: str = "emotion,pixels,Usage",
    end: str = "\n",
) -> bytes:
    lines = [header, *(f"{code},{pixels},{usage}" for code, pixels, usage in rows)]
    return "".join(line + end for line in lines).encode()


# Functions that return the content of a file from its rows, by file name.
FORMS: dict[str, Callable[[Cells], bytes]] = {
    "plain.csv": _format_plain,
    "columns in another order.csv": lambda rows: (
        "Usage,pixels,emotion\n" + "".join(f"{u},{p},{c}\n" for c, p, u in rows)
    ).encode(),
    "spaces and case.csv": lambda rows: _format_plain(rows, " EMOTION , pixels,usage "),
    "spaces around values.csv": lambda rows: (
        "emotion, pixels, Usage\n" + "".join(f" {c} ,  {p} , {u}\t\n" for c, p, u in rows)
    ).encode(),
    "two spaces and tabs.csv": lambda rows: _format_plain(
        [(c, p.replace(" ", "  ", 3).replace(" ", "\t", 1), u) for c, p, u in rows]
    ),
    "crlf.csv": lambda rows: _format_plain(rows, end="\r\n"),
    "bom.csv": lambda rows: b"\xef\xbb\xbf" + _format_plain(rows),
    "bom, blank line, crlf.csv": lambda rows: b"\xef\xbb\xbf\r\n" + _format_plain(rows, end="\r\n"),
    "quoted.csv": lambda rows: (
        '"emotion","pixels","Usage"\n' + "".join(f'"{c}","{p}","{u}"\n' for c, p, u in rows)
    ).encode(),
    "partly quoted, bom.csv": lambda rows: (
        b"\xef\xbb\xbf"
        + (
            '"emotion", "pixels",Usage\r\n' + "".join(f'{c}, "{p}",{u}\r\n' for c, p, u in rows)
        ).encode()
    ),
    "names.csv": lambda rows: _format_plain(
        [(("Angry", "disgust", "fear", " HAPPINESS")[c], p, u) for c, p, u in rows]
    ),
    "zipped.csv.gz": lambda rows: gzip.compress(_format_plain(rows)),
    "zipped.csv.bz2": lambda rows: bz2.compress(_format_plain(rows)),
    "SHOUTED.CSV": _format_plain,
    "no newline at the end.csv": lambda rows: _format_plain(rows).removesuffix(b"\n"),
    "blank lines.csv": lambda rows: (
        b"\n  \n" + _format_plain(rows).replace(b"\n", b"\n\n \t\r\n\n")
    ),
    "more columns.csv": lambda rows: (
        "file,emotion,votes,pixels,Usage,note\n"
        + "".join(f'a.png,{c},"1,2",{p},{u},\n' for c, p, u in rows)
    ).encode(),
    "not utf-8.csv": lambda rows: (
        "photographer,emotion,pixels,Usage\n" + "".join(f"Jörg,{c},{p},{u}\n" for c, p, u in rows)
    ).encode("latin-1"),
    "ümlaut 100%20 & more #1?+.csv": _format_plain,
    "ten pixels wide.csv": _format_plain,
    "six pixels too few in the first row.csv": lambda rows: _format_plain(
        [(0, " ".join(["1"] * 58), "Training"), *rows]
    ),
}


@pytest.fixture(scope="module")
def forms(tmp_path_factory, prepare):
    """A folder with a file of each form, its dataset, and the images of each file."""
    folder = tmp_path_factory.mktemp("forms")
    images = {}
    for number, (name, form) in enumerate(FORMS.items()):
        side = 10 if name.startswith("ten") else 8
        images[name] = [make_image(10 * number + row, side) for row in range(3)]
        cells = [
            (row + 1, " ".join(map(str, image.ravel().tolist())), USAGES[row])
            for row, image in enumerate(images[name])
        ]
        (folder / name).write_bytes(form(cells))
    (folder / "header only.csv").write_bytes(b"emotion,pixels,Usage\n")
    (folder / "empty.csv").write_bytes(b"")
    (folder / "empty.csv.gz").write_bytes(gzip.compress(b""))
    (folder / "README.txt").write_text("no data")
    return folder, prepare(folder, input={"max_quarantined_fraction": 0.1}), images


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_file_gives_the_same_rows(forms, name) -> None:
    folder, dataset, images = forms
    first_record = 1 if name.startswith("six") else 0

    assert dataset.rows_from(folder / name) == [
        build_expected_row(
            folder / name, first_record + row, row + 1, resize(image, 8), split, original=image
        )
        for row, (image, split) in enumerate(zip(images[name], SPLITS.values(), strict=True))
    ]


def test_files_without_rows_and_other_files_add_nothing(forms) -> None:
    folder, dataset, _ = forms

    assert {row["source"] for row in dataset.rows} == {str(folder / name) for name in FORMS}
    assert dataset.quarantine == [
        {
            "source": str(folder / "six pixels too few in the first row.csv"),
            "record": 0,
            "reason": "wrong number of pixels",
            "detail": "58 pixels, expected 64",
            "excerpt": "0," + "1 " * 27 + "... 1 1 1 1 1 1,Training",
        }
    ]


def test_a_file_without_usage_is_split_by_emotion(prepare, tmp_path) -> None:
    images = [make_image(row) for row in range(20)]
    rows = [format_row(row % 2, image).rpartition(",")[0] for row, image in enumerate(images)]
    file = write_csv(tmp_path / "two columns.csv", rows, "emotion, pixels")

    dataset = prepare(file, split={"method": "stratified", "validation": 0.2, "test": 0.1})

    splits = [row["split"] for row in dataset.rows]
    assert dataset.rows == [
        build_expected_row(file, record, record % 2, image, splits[record])
        for record, image in enumerate(images)
    ]
    by_label = [sorted(splits[label::2]) for label in range(2)]
    assert by_label == [["test"] + ["train"] * 7 + ["validation"] * 2] * 2


def test_the_error_for_a_missing_usage_column_names_the_setting_without_it(
    prepare, tmp_path
) -> None:
    file = write_csv(
        tmp_path / "a.csv", [format_row(0, make_image(0)).rpartition(",")[0]], "emotion,pixels"
    )

    with pytest.raises(InputError) as caught:
        prepare(file)

    message = str(caught.value)
    assert message.startswith(f"{file}: no column usage")
    assert "emotion, pixels" in message
    assert "split.method=stratified" in message


@pytest.mark.parametrize("text", [b"", b"\n \r\n", b"emotion,pixels,Usage\n"])
def test_a_file_without_rows_is_refused(prepare, tmp_path, text) -> None:
    (tmp_path / "a.csv").write_bytes(text)

    with pytest.raises(InputError, match=r"a\.csv: contains no records; a CSV"):
        prepare(tmp_path / "a.csv", to=tmp_path / "out")

    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("missing", ["gone.csv", "gone/*.csv", "not there at all.csv"])
def test_the_error_for_a_missing_path_is_one_line(prepare, missing, tmp_path) -> None:
    existing = write_csv(tmp_path / "existing.csv", [format_row(0, make_image(0))])

    with pytest.raises(InputError) as caught:
        prepare(existing, existing.parent / missing)

    message = str(caught.value)
    assert f"{existing.parent / missing}: " in message
    assert "\n" not in message


def test_files_globs_and_folders_can_be_combined(prepare, tmp_path) -> None:
    names = ["one.csv", "glob/part 1.csv", "glob/part 2.csv", "glob/other.csv", "deep/a/b/c.csv"]
    files = [
        write_csv(tmp_path / name, [format_row(number % 7, make_image(number))])
        for number, name in enumerate(names)
    ]
    root = files[0].parent

    dataset = prepare(files[0], f"file:{root}/glob/part*.csv", root / "deep")

    read = [0, 1, 2, 4]
    assert dataset.rows == sorted(
        (build_expected_row(files[number], 0, number, make_image(number)) for number in read),
        key=lambda row: row["source"],
    )
    assert [source.path for source in dataset.manifest.sources] == sorted(
        str(files[number]) for number in read
    )


def test_a_file_named_by_two_paths_is_read_once(prepare, tmp_path) -> None:
    file = write_csv(
        tmp_path / "a.csv", [format_row(label, make_image(label)) for label in range(3)]
    )

    dataset = prepare(file, file.parent, split={"deduplicate": False})

    assert dataset.rows == [
        build_expected_row(file, label, label, make_image(label)) for label in range(3)
    ]
    assert dataset.manifest.rows.read == 3


def test_a_folder_of_csv_files_and_images_needs_a_format(prepare, tmp_path) -> None:
    file = write_csv(
        tmp_path / "in/a.csv", [format_row(0, make_image(0)), format_row(1, make_image(1))]
    )
    (file.parent / "face.png").write_bytes(b"")

    with pytest.raises(
        InputError, match=r"holds both CSV files \(1\) and images \(1\).*input\.format"
    ):
        prepare(file.parent)

    assert [row["record"] for row in prepare(file.parent, input={"format": "csv"}).rows] == [0, 1]


def test_a_folder_without_csv_files_and_images_is_refused(prepare, tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")

    with pytest.raises(InputError, match=r"none of its 1 files .* input\.format"):
        prepare(tmp_path)


FIVE = ["anger", "disgust", "sad", "happiness", "surprise"]


def test_a_warning_is_logged_if_codes_never_exceed_four(prepare, caplog, tmp_path) -> None:
    low = write_csv(
        tmp_path / "low.csv", [format_row(code, make_image(code)) for code in (0, 4, 2)]
    )
    high = write_csv(
        tmp_path / "high.csv", [format_row(code, make_image(10 + code)) for code in (0, 5)]
    )
    words = write_csv(tmp_path / "words.csv", [format_row("fear", make_image(20))])

    with caplog.at_level(logging.WARNING, logger="fer_pipeline.pipelines.run_preprocessing"):
        dataset = prepare(low, high, words)

    assert [row["emotion"] for row in dataset.rows_from(low)] == ["angry", "sad", "fear"]
    warnings = [record.getMessage() for record in caplog.records]
    code_warnings = [text for text in warnings if "input.emotions" in text]
    assert len(code_warnings) == 1
    assert code_warnings[0].startswith(f"{low}: its codes never exceed 4")


def test_input_emotions_sets_the_meanings_of_codes(prepare, caplog, tmp_path) -> None:
    file = write_csv(tmp_path / "e.csv", [format_row(code, make_image(code)) for code in range(5)])

    with caplog.at_level(logging.WARNING, logger="fer_pipeline.pipelines.run_preprocessing"):
        dataset = prepare(file, input={"emotions": FIVE})

    classes = ["angry", "disgust", "sad", "happy", "surprise"]
    assert dataset.manifest.classes == classes
    assert dataset.rows == [
        build_expected_row(file, code, code, make_image(code), classes=classes) for code in range(5)
    ]
    assert not any("input.emotions" in record.getMessage() for record in caplog.records)


def test_selected_classes_are_renumbered(prepare, tmp_path) -> None:
    emotions = ["angry", "disgust", "fear", "Happiness", "sadness", "5", "6"]
    file = write_csv(
        tmp_path / "a.csv", [format_row(text, make_image(row)) for row, text in enumerate(emotions)]
    )

    dataset = prepare(file, classes=["surprised", "Joy", "anger"])

    classes = ["surprise", "happy", "angry"]
    assert dataset.manifest.classes == classes
    assert dataset.rows == [
        build_expected_row(file, record, label, make_image(record), classes=classes)
        for record, label in ((0, 2), (3, 1), (5, 0))
    ]
    assert dataset.manifest.rows.dropped["class not selected"] == 4


def test_input_format_csv_accepts_any_file_name(prepare, tmp_path) -> None:
    file = write_csv(tmp_path / "data.txt", [format_row(n, make_image(n)) for n in range(2)])

    dataset = prepare(file, input={"format": "csv"})

    assert dataset.rows == [build_expected_row(file, n, n, make_image(n)) for n in range(2)]
    # The hash is part of the format of a dataset, so it must never change.
    assert dataset.rows[0]["image_hash"] == "42d9efbd94f1f8f3803f20ef5c2f10b6"


def test_an_existing_file_is_read_even_if_its_name_is_a_glob(prepare, tmp_path) -> None:
    lines = [format_row(0, make_image(n), usage) for n, usage in enumerate(USAGES)]
    plain = prepare(write_csv(tmp_path / "plain.csv", lines))
    odd = prepare(write_csv(tmp_path / "my [x] faces{1}, ümlaut*.csv", lines))
    assert odd.manifest.checksum == plain.manifest.checksum
    assert odd.manifest.rows.read == 3


def test_a_warning_is_logged_for_each_empty_split(prepare, caplog, tmp_path) -> None:
    with caplog.at_level(logging.WARNING):
        prepare(
            write_csv(
                tmp_path / "train.csv", [format_row(0, make_image(n), "Training") for n in range(3)]
            )
        )
    messages = [message for message in caplog.messages if "split is empty" in message]
    assert len(messages) == 2
    for message, split in zip(messages, ("validation", "test"), strict=True):
        assert message.startswith(f"the {split} split is empty")
        assert f"split.{split} " in message


def test_inputs_on_another_filesystem_are_read(spark, prepare, tmp_path) -> None:
    """Read through Hadoop's viewfs, whose paths are not paths of this machine."""
    lines = [format_row(0, make_image(n), usage) for n, usage in enumerate(USAGES)]
    local = write_csv(tmp_path / "faces.csv", lines)
    settings = spark.sparkContext._jsc.hadoopConfiguration()
    settings.set("fs.viewfs.mounttable.faces.link./in", f"file:{tmp_path}")

    prepared = prepare("viewfs://faces/in/faces.csv")

    assert prepared.manifest.checksum == prepare(local).manifest.checksum
    assert [source.path for source in prepared.manifest.sources] == ["viewfs://faces/in/faces.csv"]

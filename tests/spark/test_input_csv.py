"""The forms that FER2013's CSV has in the wild, and its bad rows."""

from __future__ import annotations

import bz2
import gzip
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fer_pipeline import images
from fer_pipeline.accounting import Reason
from fer_pipeline.errors import DatasetError, InputError, TooManyBadRowsError

USAGES = ("Training", "PublicTest", "PrivateTest")
SPLITS = dict(zip(USAGES, ("train", "validation", "test"), strict=True))

# Each form of a file from its three rows of (code, pixels, usage).
Cells = list[tuple[int, str, str]]


def _plain(rows: Cells, header: str = "emotion,pixels,Usage", end: str = "\n") -> bytes:
    lines = [header, *(f"{code},{pixels},{usage}" for code, pixels, usage in rows)]
    return "".join(line + end for line in lines).encode()


FORMS: dict[str, Callable[[Cells], bytes]] = {
    "plain.csv": _plain,
    "columns in another order.csv": lambda rows: (
        "Usage,pixels,emotion\n" + "".join(f"{u},{p},{c}\n" for c, p, u in rows)
    ).encode(),
    "spaces and case.csv": lambda rows: _plain(rows, " EMOTION , pixels,usage "),
    "spaces around values.csv": lambda rows: (
        "emotion, pixels, Usage\n" + "".join(f" {c} ,  {p} , {u}\t\n" for c, p, u in rows)
    ).encode(),
    "two spaces and tabs.csv": lambda rows: _plain(
        [(c, p.replace(" ", "  ", 3).replace(" ", "\t", 1), u) for c, p, u in rows]
    ),
    "crlf.csv": lambda rows: _plain(rows, end="\r\n"),
    "bom.csv": lambda rows: b"\xef\xbb\xbf" + _plain(rows),
    "bom, blank line, crlf.csv": lambda rows: b"\xef\xbb\xbf\r\n" + _plain(rows, end="\r\n"),
    "quoted.csv": lambda rows: (
        '"emotion","pixels","Usage"\n' + "".join(f'"{c}","{p}","{u}"\n' for c, p, u in rows)
    ).encode(),
    "partly quoted, bom.csv": lambda rows: b"\xef\xbb\xbf"
    + ('"emotion", "pixels",Usage\r\n' + "".join(f'{c}, "{p}",{u}\r\n' for c, p, u in rows)).encode(),
    "names.csv": lambda rows: _plain(
        [(("Angry", "disgust", "fear", " HAPPINESS")[c], p, u) for c, p, u in rows]
    ),
    "zipped.csv.gz": lambda rows: gzip.compress(_plain(rows)),
    "zipped.csv.bz2": lambda rows: bz2.compress(_plain(rows)),
    "SHOUTED.CSV": _plain,
    "no newline at the end.csv": lambda rows: _plain(rows).removesuffix(b"\n"),
    "blank lines.csv": lambda rows: b"\n  \n" + _plain(rows).replace(b"\n", b"\n\n \t\r\n\n"),
    "more columns.csv": lambda rows: (
        "file,emotion,votes,pixels,Usage,note\n"
        + "".join(f'a.png,{c},"1,2",{p},{u},\n' for c, p, u in rows)
    ).encode(),
    "not utf-8.csv": lambda rows: (
        "photographer,emotion,pixels,Usage\n" + "".join(f"Jörg,{c},{p},{u}\n" for c, p, u in rows)
    ).encode("latin-1"),
    "ümlaut 100%20 & more #1?+.csv": _plain,
    "ten pixels wide.csv": _plain,
    "six pixels too few in the first row.csv": lambda rows: _plain(
        [(0, " ".join(["1"] * 58), "Training"), *rows]
    ),
}


@pytest.fixture(scope="module")
def forms(tmp_path_factory, prepare, picture):
    """All forms in one folder and one run; and the images of each file."""
    folder = tmp_path_factory.mktemp("forms")
    drawn = {}
    for number, (name, form) in enumerate(FORMS.items()):
        side = 10 if name.startswith("ten") else 8
        drawn[name] = [picture(10 * number + row, side) for row in range(3)]
        cells = [
            (row + 1, " ".join(map(str, image.ravel().tolist())), USAGES[row])
            for row, image in enumerate(drawn[name])
        ]
        (folder / name).write_bytes(form(cells))
    (folder / "header only.csv").write_bytes(b"emotion,pixels,Usage\n")
    (folder / "empty.csv").write_bytes(b"")
    (folder / "empty.csv.gz").write_bytes(gzip.compress(b""))
    (folder / "README.txt").write_text("no data")
    return folder, prepare(folder, input={"max_bad_fraction": 0.1}), drawn


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_file_gives_the_same_rows(forms, stored, name) -> None:
    folder, made, drawn = forms
    first = 1 if name.startswith("six") else 0

    assert made.of(folder / name) == [
        stored(
            folder / name, first + row, row + 1, images.resize(image, 8), split, original=image
        )
        for row, (image, split) in enumerate(zip(drawn[name], SPLITS.values(), strict=True))
    ]


def test_nothing_else_is_read(forms) -> None:
    folder, made, _ = forms

    assert {row["source"] for row in made.rows} == {str(folder / name) for name in FORMS}
    assert made.quarantine == [
        {
            "source": str(folder / "six pixels too few in the first row.csv"),
            "record": 0,
            "reason": "wrong number of pixels",
            "detail": "58 pixels, expected 64",
            "excerpt": "0," + "1 " * 26 + "1 ... " + "1 " * 5 + "1,Training"[-10:],
        }
    ]

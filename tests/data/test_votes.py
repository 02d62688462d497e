from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_pipeline.data import votes
from fer_pipeline.data.emotions import KNOWN
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.data.votes import Votes
from fer_pipeline.errors import InputError, StorageError

HEADER = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
)
COLUMNS = tuple(HEADER.split(",")[2:])
CLASSES = ("angry", "happy", "sad")


@pytest.fixture
def file(tmp_path) -> Callable[..., Path]:
    def write(*rows: str, header: str = HEADER) -> Path:
        path = tmp_path / "votes.csv"
        path.write_bytes("\n".join([header, *rows]).encode())
        return path

    return write


def row(usage: str = "Training", **cast: int) -> str:
    """A row in which all columns that are not named have no votes."""
    return ",".join([usage, "fer0000000.png", *(str(cast.pop(name, 0)) for name in COLUMNS)])


# --- Files that are none.


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "unknown column 'Training': expected one of usage, image name, unknown, nf, angry, "),
        ("a\x00b;c", "unknown column "),
        (HEADER.replace("anger", "angr"), "unknown column 'angr': did you mean angry?"),
        (HEADER.replace("NF", "N F"), "unknown column 'N F': did you mean nf?"),
        (HEADER.replace("unknown", "unknwon"), "unknown column 'unknwon': did you mean unknown?"),
        (HEADER.replace("happiness", "happines"), "'happines': did you mean happiness?"),
        (HEADER + ",happy", "its first line contains happy twice"),
        (HEADER + ",nf", "its first line contains nf twice"),
        (HEADER.replace(",NF", ""), "no column nf in its first line (got: Usage, Image name, neut"),
        (
            HEADER.replace(",sadness", "").replace(",unknown", ""),
            "no column sad, unknown in its first line (got: ",
        ),
    ],
)
def test_a_header_that_is_none_is_refused(file, header, message):
    path = file(row(), header=header)
    with pytest.raises(InputError) as raised:
        votes.read_votes(str(path), CLASSES)
    assert str(raised.value).startswith(f"{path}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("Training,x,1,2,3,4,5,6,7,8,9", "11 fields, its first line has 12"),
        ("Training,x,1,2,3,4,5,6,7,8,9,0,0", "13 fields, its first line has 12"),
        ("Training,x,1,-2,3,4,5,6,7,8,9,0", "happy is '-2', expected a whole number of votes"),
        ("Training,x,1,2,3,4.0,5,6,7,8,9,0", "sad is '4.0', expected a whole number"),
        ("Training,x,1,2,3,4,5,6,7,,9,0", "contempt is '', expected a whole number"),
        ("Training,x,1,2,3,4,five,6,7,8,9,0", "angry is 'five', expected a whole number"),
        ("Training,x,1,2,3,4,5,6,7,8,9,1e3", "nf is '1e3', expected a whole number"),
        ("Training,x,1,2,3,4,5,6,7,8,\u0663,0", "unknown is '\u0663', expected a whole number"),
        ("Training,x,1,2,3,4,5,6,7,8,9,1234567890", "nf is '1234567890', expected a whole"),
        ('Training,"x,1,2,3,4,5,6,7,8,9,0', "is no CSV: "),
    ],
)
def test_a_row_that_is_none_is_refused_by_its_line(file, bad, message):
    path = file(row(), "", bad)
    with pytest.raises(InputError) as raised:
        votes.read_votes(str(path), CLASSES)
    assert str(raised.value).startswith(f"{path}, line 4: {message}")


@pytest.mark.parametrize("text", ["", "\ufeff", "\n \r\n,,\n"])
def test_a_file_that_holds_nothing_is_refused(tmp_path, text):
    (tmp_path / "v.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="no column angry, happy, sad, unknown, nf in its first"):
        votes.read_votes(str(tmp_path / "v.csv"), CLASSES)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(StorageError, match="no such file"):
        votes.read_votes(str(tmp_path / "none.csv"), CLASSES)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StorageError, match="cannot be read"):
        votes.read_votes(str(tmp_path / "binary.csv"), CLASSES)


def test_a_class_that_was_not_voted_on_is_refused(file):
    path = file(row(), header=HEADER.replace("contempt,", ""))
    with pytest.raises(InputError, match=r"no column contempt in its first line"):
        votes.read_votes(str(path), ("sad", "contempt"))


# --- Files as they are.


def test_votes_are_read_in_the_order_of_the_classes(file):
    found = votes.read_votes(str(file(row(anger=1, sadness=2, NF=3), row(happiness=7))), CLASSES)
    assert found.counts.tolist() == [[1, 0, 2], [0, 7, 0]]
    assert found.counts.dtype == np.uint8
    assert found.no_face.tolist() == [True, False]
    assert len(found) == 2


def test_columns_stand_in_any_order_and_form(file):
    header = ' nf, Unknown ,"SADNESS",calm,  Image   Name, joy,anger'
    text = "\ufeff" + header
    path = file("0,1, 2 ,3,x,4,5\r", "\r", "9,0,0,0,,0,0\r", "", header=text)

    found = votes.read_votes(f"file://{path}", ("neutral", *CLASSES))

    assert found.counts.tolist() == [[3, 5, 4, 2], [0, 0, 0, 0]]
    assert found.no_face.tolist() == [False, True]
    # It names no usage, so none contradicts it.
    found.require_matching_usage(0, "Training", "a.csv")


def test_a_file_without_rows_has_no_votes(file):
    assert len(votes.read_votes(str(file()), CLASSES)) == 0


def test_many_votes_are_counted_too(file):
    found = votes.read_votes(str(file(row(anger=70_000, sadness=255))), CLASSES)
    assert found.counts.tolist() == [[70_000, 0, 255]]


@pytest.mark.parametrize(
    ("cast", "expected"),
    [
        ({"NF": 1}, True),
        ({"NF": 5, "unknown": 4, "anger": 1}, True),
        ({"NF": 5, "unknown": 5}, False),
        ({"NF": 3, "fear": 3, "anger": 3}, False),
        ({"NF": 4, "anger": 3, "sadness": 3}, True),
        ({"NF": 0}, False),
    ],
)
def test_no_face_is_what_more_say_than_anything_else(file, cast, expected):
    assert votes.read_votes(str(file(row(**cast))), CLASSES).no_face.tolist() == [expected]


# --- What they decide.


def reference(cast: dict[str, int], given: str | None) -> str | Outcome:
    """The rules, word by word, for one image."""
    if cast["NF"] > max(n for name, n in cast.items() if name != "NF"):
        return Outcome.NO_FACE
    left = {name: cast[name] for name in CLASSES if cast[name]}
    if not left:
        return Outcome.NO_VOTES
    tied = [name for name, n in left.items() if n == max(left.values())]
    if len(tied) == 1:
        return tied[0]
    return given if given in tied else Outcome.TIED_VOTES


ballots = st.fixed_dictionaries({name: st.integers(0, 3) for name in (*KNOWN, "unknown", "NF")})


@given(st.lists(st.tuples(ballots, st.sampled_from([None, *CLASSES])), min_size=1, max_size=30))
def test_the_class_with_most_votes_is_the_label(cast):
    table = np.array([[ballot[name] for name in CLASSES] for ballot, _ in cast], np.uint8)
    made = Votes(
        path="v.csv",
        counts=table,
        no_face=np.array([reference(b, None) is Outcome.NO_FACE for b, _ in cast]),
        usage_codes=np.zeros(len(cast), np.uint8),
        usage_names=("",),
    )
    given_by_source = [-1 if name is None else CLASSES.index(name) for _, name in cast]

    # In another order, as the tasks ask for them.
    records = np.random.default_rng(0).permutation(len(cast))
    labels, outcomes = made.choose_labels(records, np.array(given_by_source, np.int32)[records])

    expected = [reference(*cast[record]) for record in records]
    assert (labels.dtype, outcomes.dtype) == (np.int32, np.int8)
    assert [
        CLASSES[label] if outcome == Outcome.KEPT else Outcome(int(outcome))
        for label, outcome in zip(labels.tolist(), outcomes, strict=True)
    ] == expected
    assert labels[outcomes != Outcome.KEPT].tolist() == [-1] * sum(
        isinstance(outcome, Outcome) for outcome in expected
    )


@given(st.lists(st.lists(st.integers(0, 10), min_size=3, max_size=3).filter(any), min_size=1))
def test_parts_are_those_of_the_votes_that_remain(counts):
    table = np.array(counts, np.uint8)
    nothing = np.zeros(len(counts), np.uint8)
    made = Votes("v.csv", table, nothing.astype(bool), nothing, ("",))

    found = made.compute_distributions(np.arange(len(counts))[::-1])

    assert found.dtype == np.float32
    expected = [[np.float32(n / sum(row)) for n in row] for row in reversed(counts)]
    assert found.tolist() == expected
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-6)


def test_usages_that_contradict_each_other_are_refused(file):
    found = votes.read_votes(str(file(row("Training"), row(" PublicTest "), row(""))), CLASSES)
    for record, usage in ((0, " training"), (1, "PUBLICTEST"), (2, "any"), (0, None), (0, " ")):
        found.require_matching_usage(record, usage, "a.csv")
    with pytest.raises(InputError) as raised:
        found.require_matching_usage(1, "Training", "/d/a.csv")
    assert str(raised.value) == (
        f"{found.path}: record 1 has the usage 'publictest', in /d/a.csv it has 'training';"
        " both files must hold the same images in the same order"
    )

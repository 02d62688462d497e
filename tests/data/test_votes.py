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
def write_votes(tmp_path) -> Callable[..., Path]:
    def write(*rows: str, header: str = HEADER) -> Path:
        path = tmp_path / "votes.csv"
        path.write_bytes("\n".join([header, *rows]).encode())
        return path

    return write


def format_row(usage: str = "Training", **vote_counts: int) -> str:
    """Return a row with the named votes; all other columns have no votes."""
    return ",".join([usage, "fer0000000.png", *(str(vote_counts.pop(name, 0)) for name in COLUMNS)])


# --- Invalid files.


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
def test_an_invalid_header_is_refused(write_votes, header, message):
    path = write_votes(format_row(), header=header)
    with pytest.raises(InputError) as raised:
        votes.read_votes(str(path), CLASSES)
    assert str(raised.value).startswith(f"{path}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("invalid_row", "message"),
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
def test_an_invalid_row_is_refused_with_its_line_number(write_votes, invalid_row, message):
    path = write_votes(format_row(), "", invalid_row)
    with pytest.raises(InputError) as raised:
        votes.read_votes(str(path), CLASSES)
    assert str(raised.value).startswith(f"{path}, line 4: {message}")


@pytest.mark.parametrize("text", ["", "\ufeff", "\n \r\n,,\n"])
def test_an_empty_file_is_refused(tmp_path, text):
    (tmp_path / "v.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="no column angry, happy, sad, unknown, nf in its first"):
        votes.read_votes(str(tmp_path / "v.csv"), CLASSES)


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(StorageError, match="no such file"):
        votes.read_votes(str(tmp_path / "none.csv"), CLASSES)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StorageError, match="cannot be read"):
        votes.read_votes(str(tmp_path / "binary.csv"), CLASSES)


def test_a_class_without_a_column_is_refused(write_votes):
    path = write_votes(format_row(), header=HEADER.replace("contempt,", ""))
    with pytest.raises(InputError, match=r"no column contempt in its first line"):
        votes.read_votes(str(path), ("sad", "contempt"))


# --- Valid files.


def test_votes_are_read_in_the_order_of_the_classes(write_votes):
    image_votes = votes.read_votes(
        str(write_votes(format_row(anger=1, sadness=2, NF=3), format_row(happiness=7))), CLASSES
    )
    assert image_votes.counts.tolist() == [[1, 0, 2], [0, 7, 0]]
    assert image_votes.counts.dtype == np.uint8
    assert image_votes.no_face.tolist() == [True, False]
    assert len(image_votes) == 2


def test_columns_may_have_any_order_and_spelling(write_votes):
    header = ' nf, Unknown ,"SADNESS",calm,  Image   Name, joy,anger'
    text = "\ufeff" + header
    path = write_votes("0,1, 2 ,3,x,4,5\r", "\r", "9,0,0,0,,0,0\r", "", header=text)

    image_votes = votes.read_votes(f"file://{path}", ("neutral", *CLASSES))

    assert image_votes.counts.tolist() == [[3, 5, 4, 2], [0, 0, 0, 0]]
    assert image_votes.no_face.tolist() == [False, True]
    # The file has no usages, so that no usage contradicts them.
    image_votes.require_matching_usage(0, "Training", "a.csv")


def test_a_file_without_rows_has_no_votes(write_votes):
    assert len(votes.read_votes(str(write_votes()), CLASSES)) == 0


def test_counts_above_255_are_read(write_votes):
    image_votes = votes.read_votes(str(write_votes(format_row(anger=70_000, sadness=255))), CLASSES)
    assert image_votes.counts.tolist() == [[70_000, 0, 255]]


@pytest.mark.parametrize(
    ("vote_counts", "expected"),
    [
        ({"NF": 1}, True),
        ({"NF": 5, "unknown": 4, "anger": 1}, True),
        ({"NF": 5, "unknown": 5}, False),
        ({"NF": 3, "fear": 3, "anger": 3}, False),
        ({"NF": 4, "anger": 3, "sadness": 3}, True),
        ({"NF": 0}, False),
    ],
)
def test_an_image_is_no_face_if_nf_has_the_most_votes(write_votes, vote_counts, expected):
    assert votes.read_votes(
        str(write_votes(format_row(**vote_counts))), CLASSES
    ).no_face.tolist() == [expected]


# --- Labels and distributions.


def decide_slowly(ballot: dict[str, int], source_label: str | None) -> str | Outcome:
    """Apply the documented rules to the votes for one image."""
    if ballot["NF"] > max(n for name, n in ballot.items() if name != "NF"):
        return Outcome.VOTED_NO_FACE
    class_votes = {name: ballot[name] for name in CLASSES if ballot[name]}
    if not class_votes:
        return Outcome.NO_VOTES
    tied = [name for name, n in class_votes.items() if n == max(class_votes.values())]
    if len(tied) == 1:
        return tied[0]
    return source_label if source_label in tied else Outcome.TIED_VOTES


ballots = st.fixed_dictionaries({name: st.integers(0, 3) for name in (*KNOWN, "unknown", "NF")})


@given(st.lists(st.tuples(ballots, st.sampled_from([None, *CLASSES])), min_size=1, max_size=30))
def test_the_class_with_most_votes_is_the_label(ballots_and_labels):
    table = np.array(
        [[ballot[name] for name in CLASSES] for ballot, _ in ballots_and_labels], np.uint8
    )
    image_votes = Votes(
        path="v.csv",
        counts=table,
        no_face=np.array(
            [decide_slowly(b, None) is Outcome.VOTED_NO_FACE for b, _ in ballots_and_labels]
        ),
        usage_codes=np.zeros(len(ballots_and_labels), np.uint8),
        usage_names=("",),
    )
    source_labels = [-1 if name is None else CLASSES.index(name) for _, name in ballots_and_labels]

    # In another order, as Spark's tasks read them.
    records = np.random.default_rng(0).permutation(len(ballots_and_labels))
    labels, outcomes = image_votes.choose_labels(
        records, np.array(source_labels, np.int32)[records]
    )

    expected = [decide_slowly(*ballots_and_labels[record]) for record in records]
    assert labels.dtype == np.int32
    assert outcomes.dtype == np.int8
    assert [
        CLASSES[label] if outcome == Outcome.KEPT else Outcome(int(outcome))
        for label, outcome in zip(labels.tolist(), outcomes, strict=True)
    ] == expected
    assert labels[outcomes != Outcome.KEPT].tolist() == [-1] * sum(
        isinstance(outcome, Outcome) for outcome in expected
    )


@given(st.lists(st.lists(st.integers(0, 10), min_size=3, max_size=3).filter(any), min_size=1))
def test_a_distribution_is_the_share_of_votes_of_each_class(counts):
    table = np.array(counts, np.uint8)
    nothing = np.zeros(len(counts), np.uint8)
    image_votes = Votes("v.csv", table, nothing.astype(bool), nothing, ("",))

    distributions = image_votes.compute_distributions(np.arange(len(counts))[::-1])

    assert distributions.dtype == np.float32
    expected = [
        [np.float32(n / sum(image_counts)) for n in image_counts]
        for image_counts in reversed(counts)
    ]
    assert distributions.tolist() == expected
    assert distributions.sum(axis=1) == pytest.approx(1, abs=1e-6)


def test_contradicting_usages_are_refused(write_votes):
    image_votes = votes.read_votes(
        str(write_votes(format_row("Training"), format_row(" PublicTest "), format_row(""))),
        CLASSES,
    )
    for record, usage in ((0, " training"), (1, "PUBLICTEST"), (2, "any"), (0, None), (0, " ")):
        image_votes.require_matching_usage(record, usage, "a.csv")
    with pytest.raises(InputError) as raised:
        image_votes.require_matching_usage(1, "Training", "/d/a.csv")
    message = str(raised.value)
    assert message.startswith(f"{image_votes.path}: record 1 has the usage 'publictest', ")
    assert "in /d/a.csv it has 'training'" in message
    assert "same order" in message

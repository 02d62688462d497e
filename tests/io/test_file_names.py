"""Names of files as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_pipeline.io.file_names import decode_file_name, encode_file_name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"plain.png", "plain.png"),
        ("表情 ü.png".encode(), "表情 ü.png"),
        (b"t\x84glich.png", r"t\x84glich.png"),
        (rb"a\b\x84.png", r"a\b\x5cx84.png"),
        (b"line\nfeed", "line\nfeed"),
    ],
)
def test_a_name_is_shown_as_text(name, text) -> None:
    assert decode_file_name(name) == text
    assert encode_file_name(text) == name


@given(st.binary() | st.lists(st.sampled_from([b"\\", b"x", b"8", b"\x84", b"f"])).map(b"".join))
def test_every_name_can_be_converted_back(name) -> None:
    assert encode_file_name(decode_file_name(name)) == name

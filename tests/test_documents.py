"""README.md, CONTRIBUTING.md and the tutorials: links and code blocks, without running them."""

import re
import subprocess

import pytest

from tests.helpers import documents
from tests.helpers.documents import ROOT

# MkDocs checks the links of the site. These two files are not part of it.
LINKED = ["README.md", "CONTRIBUTING.md"]
TUTORIALS = ["docs/tutorials/demo.md", "docs/tutorials/fer2013.md"]
LANGUAGES = {"bash", "python", "text", "yaml"}


@pytest.mark.parametrize("document", LINKED)
def test_relative_links_lead_to_a_file_and_a_heading(document):
    links = [link for link in documents.read_links(document) if not link.startswith("http")]
    assert links
    for link in links:
        name, _, anchor = link.partition("#")
        path = ROOT / name if name else ROOT / document
        assert path.exists(), link
        assert not anchor or anchor in documents.read_anchors(path), link


def test_the_readme_has_at_most_150_lines_and_1200_words():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1200


@pytest.mark.parametrize("document", ["README.md", *TUTORIALS])
def test_code_blocks_name_their_language_and_are_valid_shell(document):
    blocks = documents.read_code_blocks(document)
    assert {block.language for block in blocks} <= LANGUAGES
    for block in blocks:
        if block.language == "bash":
            subprocess.run(["bash", "-n"], input=block.code, text=True, check=True)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", *TUTORIALS])
def test_make_targets_exist(document):
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([a-z][a-z0-9-]+)", _read_code(document)))
    assert named <= targets


def _read_code(document: str) -> str:
    """Return the code blocks and the inline code of a document."""
    text = (ROOT / document).read_text()
    blocks = [block.code for block in documents.read_code_blocks(document)]
    return "\n".join(blocks + re.findall(r"`([^`\n]+)`", text))

"""Code blocks and links of Markdown documents, and the names of their headings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class CodeBlock(NamedTuple):
    """A fenced code block.

    Attributes:
        language: Language after the opening fence; empty if there is none.
        code: Lines between the fences.
    """

    language: str
    code: str


def read_code_blocks(document: str) -> list[CodeBlock]:
    """Return the code blocks of a document, which is a path relative to the checkout."""
    text = (ROOT / document).read_text()
    return [CodeBlock(*match) for match in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)]


def read_links(document: str) -> list[str]:
    """Return the targets of the links and pictures of a document, without code."""
    text = _remove_code((ROOT / document).read_text())
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)


def read_anchors(path: Path) -> set[str]:
    """Return the anchors of the headings of a Markdown file, as GitHub and MkDocs form them."""
    headings = re.findall(r"^#+ +(.+)$", _remove_fences(path.read_text()), re.M)
    return {
        re.sub(r" +", "-", re.sub(r"[^\w\- ]", "", heading.lower()).strip()) for heading in headings
    }


def _remove_fences(text: str) -> str:
    """Remove the fenced code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def _remove_code(text: str) -> str:
    """Remove fenced code blocks and inline code."""
    return re.sub(r"`[^`\n]*`", "", _remove_fences(text))

"""The documentation site, built as `make docs` builds it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.documents import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site. A warning, such as a broken link, fails the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"]
    process = subprocess.run(
        [*command, "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")
    return folder


def test_pages_load_nothing_from_other_hosts(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        html = page.read_text()
        urls = re.findall(r'<(?:script|img|iframe|source)\b[^>]*\bsrc="([^"]+)"', html)
        urls += re.findall(r'<link\b[^>]*\brel="(?:stylesheet|preload)"[^>]*href="([^"]+)"', html)
        urls += re.findall(r'<link\b[^>]*\bhref="([^"]+)"[^>]*rel="(?:stylesheet|preload)"', html)
        assert urls
        assert [url for url in urls if re.match(r"(https?:)?//", url)] == [], page.name


def test_the_cards_of_the_bundled_models_are_pages(site):
    for name in ("compact", "mirrored"):
        assert (site / "models" / name / "card.html").exists()

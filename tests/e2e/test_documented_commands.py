"""The commands of README.md and of the tutorials, run in order in a copy of the checkout."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sysconfig
import threading
import venv
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fer_pipeline.data import synthetic
from tests.helpers import documents
from tests.helpers.documents import ROOT, CodeBlock

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def create_environment(folder: Path) -> None:
    """Create .venv in a checkout, with the packages of the environment that runs the tests.

    The checkout's own code comes before theirs.
    """
    environment = folder / ".venv"
    venv.create(environment, symlinks=True)
    paths = (folder, sysconfig.get_path("purelib"))
    own_packages = sysconfig.get_path("purelib", "venv", vars={"base": str(environment)})
    Path(own_packages, "checkout.pth").write_text("".join(f"{path}\n" for path in paths))
    # The Makefile builds the environment if this file does not name the checkout.
    (environment / ".complete").write_text(f"{folder}\n")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the checkout's files, with an environment."""
    folder = tmp_path.resolve() / "fer_pipeline"
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listing.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    create_environment(folder)
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """The URL of a server with a clone of the repository, without uncommitted changes.

    pip refuses a requirement with a git URL that has no host, as file URLs.
    """
    clone = tmp_path / "served" / "fer_pipeline.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(ROOT), str(clone)], check=True)
    # Without it, git cannot read a repository from a server of files.
    subprocess.run(["git", "update-server-info"], cwd=clone, check=True)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(clone.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{clone.name}"
        server.shutdown()


def run_block(block: CodeBlock, folder: Path, **variables: str) -> str:
    """Run a code block in a folder, and return what it writes to stdout and stderr."""
    # `git clone` is left out: the folder is a copy of the checkout. The line that sets REPOSITORY
    # has a placeholder: the variable comes from the caller.
    code = re.sub(r"^(git clone |REPOSITORY=).*\n", "", block.code, flags=re.M)
    command = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [".venv/bin/python", "-c"]}
    process = subprocess.run(
        [*command[block.language], code],
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert process.returncode == 0, f"{code}\n{process.stdout}"
    return process.stdout


def run_document(document: str, folder: Path, **variables: str) -> str:
    """Run all code blocks of a document in order, and return their output."""
    blocks = documents.read_code_blocks(document)
    runnable = [block for block in blocks if block.language in ("bash", "python")]
    assert runnable
    return "".join(run_block(block, folder, **variables) for block in runnable)


def read_paths(document: str, folders: str) -> set[str]:
    """Return the paths in inline code that begin with one of some folders.

    Args:
        document: Path of the document, relative to the checkout.
        folders: Regular expression of the folders.
    """
    return set(re.findall(rf"`((?:{folders})/[\w./=]*)`", (ROOT / document).read_text()))


def test_the_commands_of_the_readme_work(checkout, repository):
    # `make test` collects the tests and does not run them: this is one of them.
    run_document(
        "README.md",
        checkout,
        REPOSITORY=repository,
        PYTEST_ADDOPTS="--collect-only --quiet",
    )
    assert (checkout / "artifacts/demo/evaluation/metrics.json").exists()


def test_the_demo_tutorial_writes_the_files_that_it_names(checkout):
    document = "docs/tutorials/demo.md"
    run_document(document, checkout)
    paths = read_paths(document, "artifacts/demo")
    assert len(paths) > 10
    assert [path for path in sorted(paths) if not (checkout / path).exists()] == []


def test_the_fer2013_tutorial_writes_the_files_that_it_names(checkout):
    document = "docs/tutorials/fer2013.md"
    # A file of the same form replaces FER2013, which must not be distributed.
    synthetic.write_csv(checkout / "fer2013.csv", 3000, seed=1)
    run_document(document, checkout)
    paths = read_paths(document, "data|runs|reports|scores")
    assert len(paths) > 10
    assert [path for path in sorted(paths) if not (checkout / path).exists()] == []

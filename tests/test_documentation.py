"""The documents name all jobs, options, configuration keys and errors as they are in the code."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

import fer_pipeline
from fer_pipeline import console, errors
from fer_pipeline.config import load_config
from fer_pipeline.config.reference import format_key_tables
from fer_pipeline.config.schema import Config
from fer_pipeline.data import schema
from fer_pipeline.data.manifest import Manifest
from fer_pipeline.data.outcomes import DropReason, QuarantineReason
from fer_pipeline.data.scores import ScoreManifest
from fer_pipeline.io.output_kinds import ComparisonFile, EvaluationFile, ExportFile, RunFile
from fer_pipeline.learning.networks.registry import list_network_names
from fer_pipeline.learning.training.history import HistoryEntry
from scripts import update_docs
from scripts.update_docs import GeneratedText
from tests.helpers import documents
from tests.helpers.documents import ROOT

DOCS = ROOT / "docs"
JOBS = list(console.describe_jobs())
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def read_bash_lines(document: Path) -> list[str]:
    """Return the lines of the bash blocks of a document; continued lines are joined."""
    blocks = documents.read_code_blocks(str(document.relative_to(ROOT)))
    text = "\n".join(block.code for block in blocks if block.language == "bash")
    return text.replace("\\\n", " ").splitlines()


def read_job_calls(document: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the job and its options for each command of a document that runs a job."""
    for line in read_bash_lines(document):
        if not line.startswith(("./spark-submit.sh ", "fer-pipeline ")):
            continue
        words = shlex.split(line, comments=True)
        job = next((word for word in words if word in JOBS), None)
        if job and "--help" not in words:
            yield job, words[words.index(job) + 1 :]


def list_keys(section: type[BaseModel]) -> list[str]:
    """Return the dotted keys of a section and of its subsections."""
    keys = []
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += [f"{name}.{key}" for key in list_keys(field.annotation)]
        else:
            keys.append(name)
    return keys


def list_job_calls() -> list[tuple[str, str, list[str]]]:
    """Return the document, the job and the options of all documented calls."""
    return [
        (str(document.relative_to(ROOT)), job, options)
        for document in DOCUMENTS
        for job, options in read_job_calls(document)
    ]


@pytest.mark.parametrize(
    "generated",
    update_docs.list_generated_texts(),
    ids=lambda generated: f"{generated.path.stem} {generated.marker}",
)
def test_the_generated_tables_are_up_to_date(generated: GeneratedText):
    document = generated.path.read_text()
    updated = update_docs.replace_generated_text(document, generated.marker, generated.text)
    assert document == updated, "run scripts/update-docs"


def test_replacing_a_generated_table_keeps_the_text_around_it():
    document = "before\n<!-- x: begin -->\n\nold\n\n<!-- x: end -->\nafter\n"
    replaced = update_docs.replace_generated_text(document, "x", "new")
    assert replaced == document.replace("old", "new")


@pytest.mark.parametrize("document", ["no comments", "<!-- x: begin -->\n\n<!-- x: begin -->\n"])
def test_a_document_without_the_two_comments_is_refused(document):
    with pytest.raises(ValueError, match="<!-- x: begin -->"):
        update_docs.replace_generated_text(document, "x", "new")


class TestConfigurationReference:
    def test_the_reference_has_every_key_once(self):
        documented = re.findall(r"^\| `([\w.]+)` \|", format_key_tables(), re.MULTILINE)
        assert sorted(documented) == sorted(list_keys(Config))

    def test_the_reference_describes_every_key(self):
        assert not re.findall(r"^\| `[\w.]+` \|[^|]*\|\s*\|$", format_key_tables(), re.MULTILINE)

    @pytest.mark.parametrize(
        ("key", "text"),
        [
            ("image.size", "From 8 to 512."),
            ("image.dtype", "One of `uint8`, `float32`."),
            ("split.validation", "From 0 to less than 1."),
            ("training.epochs", "Above 0."),
            ("training.mixup_alpha", "0 or more."),
            ("training.schedule.factor", "Above 0 and less than 1."),
            ("training.early_stopping.monitor", "`val_mean_class_accuracy`."),
        ],
    )
    def test_the_description_of_a_key_ends_with_the_allowed_values(self, key, text):
        (row,) = (line for line in format_key_tables().splitlines() if f"| `{key}` |" in line)
        assert row.endswith(f" {text} |")


class TestJobPages:
    @pytest.mark.parametrize("job", JOBS)
    def test_the_page_of_a_job_begins_with_its_name(self, job):
        assert (DOCS / "jobs" / f"{job}.md").read_text().startswith(f"# {job}\n")

    def test_there_are_pages_only_for_jobs(self):
        pages = {path.stem for path in (DOCS / "jobs").glob("*.md")}
        assert pages == {*JOBS, "index"}

    @pytest.mark.parametrize("job", JOBS)
    def test_the_page_of_a_job_has_a_command_of_the_job(self, job):
        calls = [name for name, _ in read_job_calls(DOCS / "jobs" / f"{job}.md")]
        assert job in calls

    @pytest.mark.parametrize("job", JOBS)
    def test_the_table_of_options_lists_every_option_of_the_help(self, job):
        parser = update_docs.make_parser(job)
        options = set(re.findall(r"(?<![\w-])--[a-z-]+", parser.format_help())) - {"--help"}
        table = update_docs.format_options(parser)
        listed = set(re.findall(r"^\| `(--[a-z-]+)", table, re.MULTILINE))
        assert listed == options

    def test_the_index_lists_the_pages_of_all_jobs(self):
        index = (DOCS / "jobs" / "index.md").read_text()
        assert [job for job in JOBS if f"]({job}.md)" not in index] == []


class TestDatasetFormat:
    document = (DOCS / "dataset_format.md").read_text()

    @pytest.mark.parametrize(
        "names",
        [
            pytest.param([*schema.dataset_columns("uint8", votes=True)], id="columns"),
            pytest.param([*schema.QUARANTINE], id="columns of the quarantine"),
            pytest.param([*schema.score_columns(["angry", "disgust"])], id="columns of scores"),
            pytest.param([*Manifest.model_fields], id="fields of the manifest"),
            pytest.param([*ScoreManifest.model_fields], id="fields of scores.json"),
            pytest.param([*DropReason], id="reasons to drop a record"),
            pytest.param([*QuarantineReason], id="reasons to quarantine a record"),
        ],
    )
    def test_the_page_names_all_columns_fields_and_reasons(self, names):
        first_cells = re.findall(r"^\| (`[^|]+`[^|]*) \|", self.document, re.MULTILINE)
        documented = re.findall("`([^`]+)`", " ".join(first_cells))
        assert set(names) <= set(documented)


@pytest.mark.parametrize(
    ("page", "files"),
    [
        ("train", RunFile),
        ("evaluate", EvaluationFile),
        ("compare", ComparisonFile),
        ("export", ExportFile),
    ],
)
def test_job_pages_name_the_files_of_the_output(page, files):
    document = (DOCS / "jobs" / f"{page}.md").read_text()
    assert [name for name in files if f"`{name}`" not in document] == []


def test_the_page_of_train_names_the_columns_of_the_history():
    document = (DOCS / "jobs" / "train.md").read_text()
    columns = [field.name for field in dataclasses.fields(HistoryEntry)]
    assert [name for name in columns if f"`{name}`" not in document] == []


def test_the_page_of_networks_names_every_network():
    document = (DOCS / "networks.md").read_text()
    assert [name for name in list_network_names() if f"| `{name}` |" not in document] == []


def test_the_changelog_names_every_job():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert [job for job in JOBS if f"`{job}`" not in changelog] == []


@pytest.mark.parametrize(("document", "job", "options"), list_job_calls())
def test_every_documented_command_has_valid_options(document, job, options):
    arguments = update_docs.make_parser(job).parse_args(options)
    config = arguments.config and ROOT / arguments.config
    load_config(config, arguments.set)


@pytest.mark.parametrize("page", [*(f"jobs/{job}" for job in JOBS), "configuration", "networks"])
def test_yaml_blocks_are_valid_configurations(page):
    blocks = documents.read_code_blocks(f"docs/{page}.md")
    for block in blocks:
        if block.language == "yaml":
            Config.model_validate(yaml.safe_load(block.code))


class TestPythonApi:
    document = (DOCS / "python_api.md").read_text()

    def test_the_page_has_a_reference_of_every_public_name(self):
        names = set(re.findall(r"^::: [\w.]+\.(\w+)$", self.document, re.MULTILINE))
        assert set(fer_pipeline.__all__) - {"__version__"} <= names

    def test_the_page_lists_every_error(self):
        classes = [
            name
            for name, member in inspect.getmembers(errors, inspect.isclass)
            if issubclass(member, errors.FerError)
        ]
        assert [name for name in classes if f"| `{name}` |" not in self.document] == []


def test_every_shipped_configuration_is_valid_and_opens_with_its_command_time_and_result():
    files = sorted((ROOT / "conf").glob("*.yaml"))
    assert files
    for file in files:
        load_config(file)
        opening = file.read_text().split("\n\n")[:3]
        assert all(line.startswith("#") for line in opening[0].splitlines())
        entries = re.findall(r"^#   (command|time|result) +(.+)", "\n".join(opening), re.MULTILINE)
        assert [key for key, _ in entries] == ["command", "time", "result"], file.name
        # A number or a command, and no placeholder.
        assert not [text for _, text in entries if text.split()[0].isupper()], file.name
        # The command runs a job with this file.
        command = dict(entries)["command"]
        assert f"conf/{file.name}" in command or command == f"make {file.stem}", file.name

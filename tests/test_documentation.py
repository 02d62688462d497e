"""What the documentation says is compared with what the code has."""

import re
from pathlib import Path

import yaml

from fer_pipeline.config import load_config
from fer_pipeline.config.reference import format_key_table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_readme_lists_every_configuration_key_as_it_is():
    written = README.split("<!-- configuration: begin -->\n")[1].split("\n<!-- configuration: end")[
        0
    ]
    assert written == format_key_table(), "run scripts/update-readme"


def test_every_configuration_key_has_a_description():
    assert not re.findall(r"^\| `[\w.]+` \|[^|]*\|\s*\|$", format_key_table(), re.MULTILINE)


def test_the_readme_and_the_changelog_name_every_job():
    jobs = sorted(path.stem for path in (ROOT / "jobs").glob("[!_]*.py"))
    for text in (README, (ROOT / "CHANGELOG.md").read_text()):
        assert [job for job in jobs if f"`{job}`" not in text and f"### {job}" not in text] == []


def test_every_shipped_configuration_is_valid_and_opens_with_its_command_time_and_result():
    files = sorted((ROOT / "conf").glob("*.yaml"))
    assert files
    for file in files:
        load_config(file)
        opening = file.read_text().split("\n\n")[:3]
        assert all(line.startswith("#") for line in opening[0].splitlines())
        said = re.findall(r"^#   (command|time|result) +(\S+)", "\n".join(opening), re.MULTILINE)
        assert [key for key, _ in said] == ["command", "time", "result"], file.name
        # A number or a command, and no placeholder.
        assert not [value for _, value in said if value.isupper()], file.name
        assert isinstance(yaml.safe_load(file.read_text()), dict)

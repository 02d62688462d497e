import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fer_pipeline import manifest
from fer_pipeline.errors import FerError
from fer_pipeline.pixels import Normalization
from fer_pipeline.publication import (
    BEGUN,
    DATASET,
    EXPORT,
    SCORES,
    Kind,
    claim,
    clean,
    withdraw,
    writing,
)

ID = "3f2b8c1e-5a64-4d1f-9c0e-7b1d2f3a4b5c"
OTHER = "9d0c7a52-11aa-4b3e-8f6d-0123456789ab"

# What a run of ours leaves that was stopped before it wrote its mark.
TORN = {
    DATASET.name: [
        f"split=train/part-00000-{ID}.parquet",
        f"split=validation/part-00000-{ID}.parquet",
        f"split=test/part-00000-{ID}.parquet",
        f"quarantine/part-00000-{ID}.parquet",
        ".manifest-a1b2c3_d.json",
    ],
    SCORES.name: [f"scores-00000-{ID}.parquet", ".scores-a1b2c3_d.json"],
}
KINDS = pytest.mark.parametrize("kind", [DATASET, SCORES], ids=lambda kind: kind.mark)


def fill(folder: Path, names: list[str]) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def refusal(folder: Path, kind: Kind, *, overwrite: bool) -> str:
    before = files(folder) if folder.is_dir() else []
    with pytest.raises(FerError) as raised:
        claim(folder, kind, overwrite=overwrite)
    assert before == (files(folder) if folder.is_dir() else [])
    return str(raised.value)


@KINDS
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_new_or_empty_folder_may_be_written(tmp_path, kind, overwrite):
    claim(tmp_path / "none" / "yet", kind, overwrite=overwrite)
    claim(tmp_path, kind, overwrite=overwrite)
    assert list(tmp_path.iterdir()) == []


def write_mark(folder: Path, kind: Kind) -> None:
    """What a finished job writes last: here, of nothing."""
    if kind is SCORES:
        made = {
            "format": SCORES.format,
            "found": 0,
            "scored": 0,
            "emotions": {},
            "unscored": {},
            "files": [],
        }
        more = {"model": {}, "versions": {}, "created": ""}
        (folder / "scores.json").write_text(json.dumps(made | more))
        return
    manifest.Manifest(
        created="",
        image=manifest.ImageInfo(size=48, dtype="uint8", normalization=Normalization.centered()),
        classes=[],
        files=[],
        counts={},
        rows=manifest.RowCounts(read=0, kept={}, dropped={}, quarantined={}, written=0),
        quarantine=[],
        sources=[],
        checksum="",
        versions={},
        config={},
    ).write(folder)


@KINDS
def test_what_is_there_already_is_only_replaced_when_asked(tmp_path, kind):
    write_mark(tmp_path, kind)
    fill(tmp_path, ["config.yaml", "README.md"])
    assert refusal(tmp_path, kind, overwrite=False) == (
        f"{tmp_path}: holds {kind.name} already; --overwrite replaces it"
    )
    claim(tmp_path, kind, overwrite=True)


@KINDS
@pytest.mark.parametrize("overwrite", [True, False])
def test_what_a_torn_run_left_is_no_obstacle(tmp_path, kind, overwrite):
    claim(fill(tmp_path, TORN[kind.name]), kind, overwrite=overwrite)
    assert files(tmp_path) == sorted(TORN[kind.name])


@KINDS
@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize(
    "name", ["notes.txt", "photos/a.jpg", "_SUCCESS", ".git/config", "data.parquet"]
)
def test_a_folder_of_other_things_is_refused(tmp_path, kind, overwrite, name):
    fill(tmp_path, [name, *TORN[kind.name]])
    message = refusal(tmp_path, kind, overwrite=overwrite)
    assert message.startswith(f"{tmp_path}: is not empty")
    assert name.partition("/")[0] in message


@KINDS
def test_a_file_in_place_of_the_folder_is_refused(tmp_path, kind):
    path = tmp_path / "file"
    path.write_text("x")
    message = refusal(path, kind, overwrite=True)
    assert message == f"{path}: is a file; choose a folder"


@KINDS
def test_a_configuration_alone_is_the_users(tmp_path, kind):
    """Ours is written after the mark: a torn run leaves none."""
    refusal(fill(tmp_path, ["config.yaml"]), kind, overwrite=False)


@KINDS
def test_parquet_files_of_another_spark_job_are_not_ours(tmp_path, kind):
    """Spark names them part-00000-..., and ours end up beside them or in their place."""
    place = "split=train/" if kind is DATASET else ""
    fill(tmp_path, [f"{place}part-00000-{ID}-c000.snappy.parquet"])
    refusal(tmp_path, kind, overwrite=False)


def test_the_manifest_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "a web application", "icons": []}')
    (tmp_path / "index.html").write_text("x")
    refusal(tmp_path, DATASET, overwrite=True)


def test_cleaning_keeps_the_dataset_and_deletes_older_files_and_torn_runs(tmp_path):
    keep = [f"split=train/part-00001-{OTHER}.parquet", f"quarantine/part-00001-{OTHER}.parquet"]
    fill(tmp_path, ["manifest.json", "config.yaml", *keep, *TORN[DATASET.name]])
    clean(tmp_path, DATASET, keep)
    assert files(tmp_path) == sorted(["manifest.json", "config.yaml", *keep])
    # A folder that is empty now is gone; the others stay.
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["quarantine", "split=train"]


def test_cleaning_scores_keeps_theirs(tmp_path):
    keep = [f"part-00001-{OTHER}.parquet"]
    fill(tmp_path, ["scores.json", "config.yaml", *keep, *TORN[SCORES.name]])
    clean(tmp_path, SCORES, keep)
    assert files(tmp_path) == sorted(["scores.json", "config.yaml", *keep])


@KINDS
def test_cleaning_twice_or_nothing_is_the_same(tmp_path, kind):
    clean(tmp_path, kind, [])
    fill(tmp_path, [kind.mark, *TORN[kind.name]])
    clean(tmp_path, kind, [])
    clean(tmp_path, kind, [])
    assert files(tmp_path) == [kind.mark]


@KINDS
def test_what_is_not_ours_is_never_deleted(tmp_path, kind):
    places = ["", "split=train/", "split=other/", "quarantine/", "deeper/split=train/", "part/"]
    names = [
        "README.md",
        "data.parquet",
        "part-00000.csv",
        ".hidden",
        ".hidden-file",
        "manifest.json.bak",
        "scores.json.bak",
    ]
    foreign = [place + name for place in places for name in names]
    fill(tmp_path, [kind.mark, *foreign, *TORN[kind.name]])
    clean(tmp_path, kind, [])
    assert files(tmp_path) == sorted([kind.mark, *foreign])


@KINDS
@pytest.mark.parametrize(
    "name", [".config-my-own-one.yaml", ".config-backup", ".manifest-old", ".scores-old"]
)
def test_hidden_files_that_only_begin_like_ours_are_never_deleted(tmp_path, kind, name):
    """Ours are .STEM-, eight characters, and the suffix of what they become."""
    fill(tmp_path, [kind.mark, name])
    clean(tmp_path, kind, [])
    assert files(tmp_path) == sorted([kind.mark, name])


@KINDS
def test_a_hidden_folder_is_no_temporary_file(tmp_path, kind):
    fill(tmp_path, [kind.mark, ".config-d/a.yaml"])
    clean(tmp_path, kind, [])
    assert files(tmp_path) == sorted([kind.mark, ".config-d/a.yaml"])


@KINDS
def test_parquet_files_of_another_spark_job_are_never_deleted(tmp_path, kind):
    place = "split=train/" if kind is DATASET else ""
    foreign = f"{place}part-00000-{ID}-c000.snappy.parquet"
    fill(tmp_path, [kind.mark, foreign])
    clean(tmp_path, kind, [])
    assert files(tmp_path) == sorted([kind.mark, foreign])


def test_the_two_kinds_do_not_take_each_others_folders(tmp_path):
    fill(tmp_path / "a", ["scores.json", "config.yaml", f"part-00000-{ID}.parquet"])
    refusal(tmp_path / "a", DATASET, overwrite=True)
    fill(tmp_path / "b", ["manifest.json", "config.yaml", f"split=train/part-00000-{ID}.parquet"])
    refusal(tmp_path / "b", SCORES, overwrite=True)


class TestWithdraw:
    OURS = ("model.tflite", "model.int8.tflite", "config.yaml", "saved_model/variables/x")

    def test_nothing_of_ours_is_left(self, tmp_path):
        fill(tmp_path / "it", list(self.OURS))
        (tmp_path / "it" / EXPORT.mark).write_text(json.dumps({"format": EXPORT.format}))
        withdraw(tmp_path / "it", EXPORT)
        assert not (tmp_path / "it").exists()

    def test_an_unfinished_one_too(self, tmp_path):
        fill(tmp_path / "it", [*self.OURS, BEGUN, ".export-a1b2c3_d.json"])
        withdraw(tmp_path / "it", EXPORT)
        assert not (tmp_path / "it").exists()

    def test_what_is_not_ours_stays(self, tmp_path):
        fill(tmp_path, [*self.OURS, "notes.txt", "more/notes.txt"])
        (tmp_path / EXPORT.mark).write_text(json.dumps({"format": EXPORT.format}))
        withdraw(tmp_path, EXPORT)
        assert files(tmp_path) == ["more/notes.txt", "notes.txt"]

    @pytest.mark.parametrize("mark", [None, "{}", "export", '{"format": "my export"}'])
    def test_a_folder_of_another_kind_is_left_alone(self, tmp_path, mark):
        fill(tmp_path, list(self.OURS))
        if mark is not None:
            (tmp_path / EXPORT.mark).write_text(mark)
        before = files(tmp_path)
        withdraw(tmp_path, EXPORT)
        assert files(tmp_path) == before

    def test_no_folder(self, tmp_path):
        withdraw(tmp_path / "none", EXPORT)
        assert not (tmp_path / "none").exists()

    @pytest.fixture
    def it(self, tmp_path):
        """An export, and what another one of ours would be."""
        fill(tmp_path / "it", list(self.OURS))
        (tmp_path / "it" / EXPORT.mark).write_text(json.dumps({"format": EXPORT.format}))
        return tmp_path / "it"

    @pytest.mark.parametrize("name", [".", "export.json", "model.tflite", "saved_model"])
    def test_links_are_neither_followed_nor_deleted(self, it, tmp_path, caplog, name):
        there = (it / name).rename(tmp_path / "theirs")
        (it / name).symlink_to(there)
        before, theirs = files(it), files(tmp_path)
        withdraw(it, EXPORT)
        assert (it / name).is_symlink()
        assert (files(it), files(tmp_path)) == (before, theirs)
        assert caplog.messages == [
            f"{it}: an export of another model is left there: {it / name} is a link, or not what a"
            " job writes there"
        ]

    @pytest.mark.parametrize("name", ["model.tflite", "saved_model", "config.yaml"])
    def test_a_folder_in_place_of_a_file_stays_and_a_file_in_place_of_a_folder(
        self, it, caplog, name
    ):
        (it / name).rename(it / "moved")
        if (it / "moved").is_dir():
            (it / name).write_text("mine")
        else:
            (it / name).mkdir()
        before = files(it)
        withdraw(it, EXPORT)
        assert files(it) == before
        (line,) = caplog.messages
        assert line.endswith(f"{it / name} is a link, or not what a job writes there")

    def test_a_disk_that_refuses_is_no_error(self, it, caplog, monkeypatch):
        def refuse(self, *args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "unlink", refuse)
        withdraw(it, EXPORT)
        (line,) = caplog.messages
        assert line.startswith(f"{it}: an export of another model is left there: ")
        assert "Permission denied" in line

    def test_a_mark_that_is_no_text(self, it, caplog):
        (it / EXPORT.mark).write_bytes(b"\xff")
        before = files(it)
        withdraw(it, EXPORT)
        assert files(it) == before
        assert "cannot be read" in caplog.messages[0]

    def test_a_file_in_place_of_it(self, tmp_path):
        (tmp_path / "it").write_text("mine")
        withdraw(tmp_path / "it", EXPORT)
        assert (tmp_path / "it").read_text() == "mine"


def begun(folder):
    return writing(folder, DATASET, overwrite=False)


class TestWriting:
    BUSY = "another job is writing there; wait for its end, or choose another folder"

    def test_is_for_one_at_a_time(self, tmp_path):
        folder = tmp_path / "made" / "here"
        with begun(folder):
            assert files(folder) == [BEGUN]
            with pytest.raises(FerError) as error, begun(folder):
                pytest.fail("two wrote at a time")
            assert str(error.value) == f"{folder}: {self.BUSY}"
            # The one that was refused has taken nothing away.
            assert files(folder) == [BEGUN]
            (folder / "written").touch()
        with begun(folder):
            pass
        assert files(folder) == [BEGUN, "written"]

    def test_leaves_no_folder_where_nothing_was_written(self, tmp_path):
        folder = tmp_path / "out"
        with begun(folder):
            clean(folder, DATASET, keep=())
        assert not folder.exists()

    def test_somebody_has_published_there_meanwhile(self, tmp_path):
        mark = tmp_path / DATASET.mark
        mark.write_text(json.dumps({"format": DATASET.format}))
        with pytest.raises(FerError, match="holds a dataset already; --overwrite"), begun(tmp_path):
            pytest.fail("it was replaced")
        # What they have published is as they have left it.
        assert files(tmp_path) == [DATASET.mark]
        with writing(tmp_path, DATASET, overwrite=True):
            pass

    def test_a_process_that_is_killed_lets_go(self, tmp_path):
        script = (
            "import sys, time\n"
            "from pathlib import Path\n"
            "from fer_pipeline import publication\n"
            "with publication.writing(Path(sys.argv[1]), publication.DATASET, overwrite=False):\n"
            "    print('begun', flush=True)\n"
            "    time.sleep(60)\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "begun\n"
            with pytest.raises(FerError, match="another job is writing there"), begun(tmp_path):
                pass
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        with begun(tmp_path):
            pass

    def test_after_the_end_of_the_one_that_was_waited_for(self, tmp_path, monkeypatch):
        """Who has opened the file before it was deleted does not take it for the next one's."""
        lock = fcntl.flock

        def deleted_before(*arguments):
            (tmp_path / BEGUN).unlink()
            lock(*arguments)

        monkeypatch.setattr(fcntl, "flock", deleted_before)
        with pytest.raises(FerError, match="another job is writing there"), begun(tmp_path):
            pass

    def test_without_locks_goes_on(self, tmp_path, monkeypatch):
        def refuse(*arguments):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(fcntl, "flock", refuse)
        with begun(tmp_path), begun(tmp_path):
            (tmp_path / "written").touch()

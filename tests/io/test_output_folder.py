import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fer_pipeline.data import manifest
from fer_pipeline.data.dataset_files import DATASET
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.errors import FerError, StorageError
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import (
    COMPARISON,
    CONFIG_FILE,
    EVALUATION,
    EXPORT,
    IN_PROGRESS_FILE,
    RUN,
    SCORES,
    OutputKind,
)

ID = "3f2b8c1e-5a64-4d1f-9c0e-7b1d2f3a4b5c"
OTHER_ID = "9d0c7a52-11aa-4b3e-8f6d-0123456789ab"

# What a job leaves that was killed before it wrote its commit file.
LEFTOVERS = {
    DATASET.name: [
        f"split=train/part-00000-{ID}.parquet",
        f"split=validation/part-00000-{ID}.parquet",
        f"split=test/part-00000-{ID}.parquet",
        f"quarantine/part-00000-{ID}.parquet",
        ".manifest-a1b2c3_d.json",
    ],
    SCORES.name: [f"scores-00000-{ID}.parquet", ".scores-a1b2c3_d.json"],
}
KINDS = pytest.mark.parametrize("kind", [DATASET, SCORES], ids=lambda kind: kind.commit_file)


def create_files(folder: Path, names: Sequence[str]) -> Path:
    """Create files that contain their own names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def list_files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def format_data_file_name(kind: OutputKind, identifier: str) -> str:
    """Return the name of a training or score file with a given UUID."""
    folder = "split=train/" if kind is DATASET else ""
    return f"{folder}{kind.data_prefix}-00000-{identifier}.parquet"


def make_commit_document(kind: OutputKind, data_files: Sequence[str] = ()) -> str:
    """Return the content of a commit file that names these data files."""
    if kind is DATASET:
        return manifest.Manifest(
            created="",
            image=manifest.ImageInfo(
                size=48, dtype="uint8", normalization=Normalization.centered()
            ),
            classes=[],
            files=[
                manifest.DataFile(path=name, split="train", rows=1, bytes=1) for name in data_files
            ],
            counts={},
            rows=manifest.RowCounts(read=0, kept={}, dropped={}, quarantined={}, written=0),
            quarantine=[],
            sources=[],
            checksum="",
            versions={},
            config={},
        ).to_json()
    return json.dumps({"format": kind.format, "files": [{"path": name} for name in data_files]})


def get_refusal_message(folder: Path, kind: OutputKind, *, overwrite: bool) -> str:
    """Return the message with which an output is refused; no file may change."""
    before = list_files(folder) if folder.is_dir() else []
    with pytest.raises(FerError) as raised:
        OutputFolder(folder, kind, overwrite=overwrite).ensure_writable()
    assert before == (list_files(folder) if folder.is_dir() else [])
    return str(raised.value)


class TestEnsureWritable:
    @KINDS
    @pytest.mark.parametrize("overwrite", [True, False])
    def test_a_new_or_empty_folder_may_be_written(self, tmp_path, kind, overwrite):
        OutputFolder(tmp_path / "none" / "yet", kind, overwrite=overwrite).ensure_writable()
        OutputFolder(tmp_path, kind, overwrite=overwrite).ensure_writable()
        assert list(tmp_path.iterdir()) == []

    @KINDS
    def test_an_existing_output_is_replaced_only_on_request(self, tmp_path, kind):
        (tmp_path / kind.commit_file).write_text(make_commit_document(kind))
        create_files(tmp_path, ["config.yaml", "README.md"])
        message = get_refusal_message(tmp_path, kind, overwrite=False)
        assert message.startswith(f"{tmp_path}: holds {kind.name} already")
        assert "--overwrite" in message
        OutputFolder(tmp_path, kind, overwrite=True).ensure_writable()

    @KINDS
    @pytest.mark.parametrize("overwrite", [True, False])
    def test_leftovers_of_a_killed_job_may_be_replaced(self, tmp_path, kind, overwrite):
        create_files(tmp_path, LEFTOVERS[kind.name])
        OutputFolder(tmp_path, kind, overwrite=overwrite).ensure_writable()
        assert list_files(tmp_path) == sorted(LEFTOVERS[kind.name])

    @KINDS
    @pytest.mark.parametrize("overwrite", [True, False])
    @pytest.mark.parametrize(
        "name", ["notes.txt", "photos/a.jpg", "_SUCCESS", ".git/config", "data.parquet"]
    )
    def test_a_folder_of_other_files_is_refused(self, tmp_path, kind, overwrite, name):
        create_files(tmp_path, [name, *LEFTOVERS[kind.name]])
        message = get_refusal_message(tmp_path, kind, overwrite=overwrite)
        assert message.startswith(f"{tmp_path}: is not empty")
        assert name.partition("/")[0] in message

    @KINDS
    def test_a_file_in_place_of_the_folder_is_refused(self, tmp_path, kind):
        path = tmp_path / "file"
        path.write_text("x")
        message = get_refusal_message(path, kind, overwrite=True)
        assert message.startswith(f"{path}: is a file")

    @KINDS
    def test_a_folder_with_only_a_configuration_is_refused(self, tmp_path, kind):
        """A job writes its own after the commit file: a killed job leaves none."""
        get_refusal_message(create_files(tmp_path, ["config.yaml"]), kind, overwrite=False)

    @KINDS
    def test_parquet_files_of_another_spark_job_are_refused(self, tmp_path, kind):
        """Spark names them part-00000-..., beside or in place of the package's own."""
        folder = "split=train/" if kind is DATASET else ""
        create_files(tmp_path, [f"{folder}part-00000-{ID}-c000.snappy.parquet"])
        get_refusal_message(tmp_path, kind, overwrite=False)

    def test_the_manifest_of_another_program_is_not_replaced(self, tmp_path):
        (tmp_path / "manifest.json").write_text('{"name": "a web application", "icons": []}')
        (tmp_path / "index.html").write_text("x")
        get_refusal_message(tmp_path, DATASET, overwrite=True)

    def test_a_kind_does_not_replace_an_output_of_another_kind(self, tmp_path):
        scores = ["scores.json", "config.yaml", f"part-00000-{ID}.parquet"]
        create_files(tmp_path / "a", scores)
        get_refusal_message(tmp_path / "a", DATASET, overwrite=True)
        dataset = ["manifest.json", "config.yaml", f"split=train/part-00000-{ID}.parquet"]
        create_files(tmp_path / "b", dataset)
        get_refusal_message(tmp_path / "b", SCORES, overwrite=True)


class TestDeleteUnlistedFiles:
    def test_only_the_files_of_the_dataset_remain(self, tmp_path):
        listed_files = [
            f"split=train/part-00001-{OTHER_ID}.parquet",
            f"quarantine/part-00001-{OTHER_ID}.parquet",
        ]
        create_files(
            tmp_path, ["manifest.json", "config.yaml", *listed_files, *LEFTOVERS[DATASET.name]]
        )
        OutputFolder(tmp_path, DATASET).delete_unlisted_files(listed_files)
        assert list_files(tmp_path) == sorted(["manifest.json", "config.yaml", *listed_files])
        # Empty folders are deleted.
        folders = sorted(p.name for p in tmp_path.iterdir() if p.is_dir())
        assert folders == ["quarantine", "split=train"]

    def test_only_the_files_of_the_scores_remain(self, tmp_path):
        listed_files = [f"scores-00001-{OTHER_ID}.parquet"]
        create_files(
            tmp_path, ["scores.json", "config.yaml", *listed_files, *LEFTOVERS[SCORES.name]]
        )
        OutputFolder(tmp_path, SCORES).delete_unlisted_files(listed_files)
        assert list_files(tmp_path) == sorted(["scores.json", "config.yaml", *listed_files])

    @KINDS
    def test_a_missing_folder_and_a_second_call_are_allowed(self, tmp_path, kind):
        OutputFolder(tmp_path / "none", kind).delete_unlisted_files([])
        OutputFolder(tmp_path, kind).delete_unlisted_files([])
        create_files(tmp_path, [kind.commit_file, *LEFTOVERS[kind.name]])
        OutputFolder(tmp_path, kind).delete_unlisted_files([])
        OutputFolder(tmp_path, kind).delete_unlisted_files([])
        assert list_files(tmp_path) == [kind.commit_file]

    @KINDS
    def test_foreign_files_are_never_deleted(self, tmp_path, kind):
        folders = [
            "",
            "split=train/",
            "split=other/",
            "quarantine/",
            "deeper/split=train/",
            "part/",
        ]
        names = [
            "README.md",
            "data.parquet",
            "part-00000.csv",
            ".hidden",
            ".hidden-file",
            "manifest.json.bak",
            "scores.json.bak",
        ]
        foreign = [folder + name for folder in folders for name in names]
        create_files(tmp_path, [kind.commit_file, *foreign, *LEFTOVERS[kind.name]])
        OutputFolder(tmp_path, kind).delete_unlisted_files([])
        assert list_files(tmp_path) == sorted([kind.commit_file, *foreign])

    @KINDS
    @pytest.mark.parametrize(
        "name", [".config-my-own-one.yaml", ".config-backup", ".manifest-old", ".scores-old"]
    )
    def test_hidden_files_with_similar_names_are_never_deleted(self, tmp_path, kind, name):
        """Temporary files are called .STEM-, eight characters, and the suffix of the final file."""
        create_files(tmp_path, [kind.commit_file, name])
        OutputFolder(tmp_path, kind).delete_unlisted_files([])
        assert list_files(tmp_path) == sorted([kind.commit_file, name])

    @KINDS
    def test_a_hidden_folder_is_not_a_temporary_file(self, tmp_path, kind):
        create_files(tmp_path, [kind.commit_file, ".config-d/a.yaml"])
        OutputFolder(tmp_path, kind).delete_unlisted_files([])
        assert list_files(tmp_path) == sorted([kind.commit_file, ".config-d/a.yaml"])

    @KINDS
    def test_parquet_files_of_another_spark_job_are_never_deleted(self, tmp_path, kind):
        folder = "split=train/" if kind is DATASET else ""
        foreign = f"{folder}part-00000-{ID}-c000.snappy.parquet"
        create_files(tmp_path, [kind.commit_file, foreign])
        OutputFolder(tmp_path, kind).delete_unlisted_files([])
        assert list_files(tmp_path) == sorted([kind.commit_file, foreign])


class TestDeleteOutdatedOutput:
    EXPORT_FILES = ("model.tflite", "model.int8.tflite", "config.yaml", "saved_model/variables/x")

    @pytest.fixture
    def export_dir(self, tmp_path):
        """An export with all its files."""
        folder = create_files(tmp_path / "export", self.EXPORT_FILES)
        (folder / EXPORT.commit_file).write_text(json.dumps({"format": EXPORT.format}))
        return folder

    def test_all_files_and_the_folder_are_deleted(self, export_dir):
        OutputFolder(export_dir, EXPORT).delete_outdated_output()
        assert not export_dir.exists()

    def test_an_unfinished_export_is_deleted_too(self, tmp_path):
        unfinished = [IN_PROGRESS_FILE, ".export-a1b2c3_d.json"]
        create_files(tmp_path / "export", [*self.EXPORT_FILES, *unfinished])
        OutputFolder(tmp_path / "export", EXPORT).delete_outdated_output()
        assert not (tmp_path / "export").exists()

    def test_foreign_files_stay(self, export_dir):
        create_files(export_dir, ["notes.txt", "more/notes.txt"])
        OutputFolder(export_dir, EXPORT).delete_outdated_output()
        assert list_files(export_dir) == ["more/notes.txt", "notes.txt"]

    @pytest.mark.parametrize("document", [None, "{}", "export", '{"format": "my export"}'])
    def test_a_folder_of_another_kind_is_left_alone(self, tmp_path, document):
        create_files(tmp_path, self.EXPORT_FILES)
        if document is not None:
            (tmp_path / EXPORT.commit_file).write_text(document)
        before = list_files(tmp_path)
        OutputFolder(tmp_path, EXPORT).delete_outdated_output()
        assert list_files(tmp_path) == before

    def test_a_missing_folder_is_allowed(self, tmp_path):
        OutputFolder(tmp_path / "none", EXPORT).delete_outdated_output()
        assert not (tmp_path / "none").exists()

    @pytest.mark.parametrize("name", [".", "export.json", "model.tflite", "saved_model"])
    def test_symbolic_links_are_neither_followed_nor_deleted(
        self, export_dir, tmp_path, caplog, name
    ):
        target = (export_dir / name).rename(tmp_path / "target")
        (export_dir / name).symlink_to(target)
        files_before = list_files(export_dir), list_files(tmp_path)
        OutputFolder(export_dir, EXPORT).delete_outdated_output()
        assert (export_dir / name).is_symlink()
        assert (list_files(export_dir), list_files(tmp_path)) == files_before
        (message,) = caplog.messages
        assert message.startswith(
            f"{export_dir}: an export of the replaced model cannot be deleted: "
        )
        assert f"{export_dir / name} is a symbolic link" in message

    @pytest.mark.parametrize("name", ["model.tflite", "saved_model", "config.yaml"])
    def test_a_folder_named_like_a_file_and_a_file_named_like_a_folder_stay(
        self, export_dir, caplog, name
    ):
        (export_dir / name).rename(export_dir / "moved")
        if (export_dir / "moved").is_dir():
            (export_dir / name).write_text("mine")
        else:
            (export_dir / name).mkdir()
        before = list_files(export_dir)
        OutputFolder(export_dir, EXPORT).delete_outdated_output()
        assert list_files(export_dir) == before
        (message,) = caplog.messages
        assert f"{export_dir / name} is a symbolic link, or is not the file or folder" in message

    def test_a_failed_deletion_is_only_logged(self, export_dir, caplog, monkeypatch):
        def refuse_to_unlink(self, *args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "unlink", refuse_to_unlink)
        OutputFolder(export_dir, EXPORT).delete_outdated_output()
        (message,) = caplog.messages
        assert message.startswith(
            f"{export_dir}: an export of the replaced model cannot be deleted: "
        )
        assert "Permission denied" in message

    def test_a_commit_file_that_is_not_text_is_left_alone(self, export_dir, caplog):
        (export_dir / EXPORT.commit_file).write_bytes(b"\xff")
        before = list_files(export_dir)
        OutputFolder(export_dir, EXPORT).delete_outdated_output()
        assert list_files(export_dir) == before
        assert "cannot be read" in caplog.messages[0]

    def test_a_file_in_place_of_the_folder_stays(self, tmp_path):
        (tmp_path / "export").write_text("mine")
        OutputFolder(tmp_path / "export", EXPORT).delete_outdated_output()
        assert (tmp_path / "export").read_text() == "mine"


def start_writing(folder: Path) -> contextlib.AbstractContextManager[None]:
    return OutputFolder(folder, DATASET).lock_for_writing()


class TestLockForWriting:
    def test_one_job_at_a_time_may_write(self, tmp_path):
        folder = tmp_path / "new" / "folder"
        with start_writing(folder):
            assert list_files(folder) == [IN_PROGRESS_FILE]
            with pytest.raises(FerError) as error, start_writing(folder):
                pytest.fail("two jobs wrote at the same time")
            assert str(error.value).startswith(f"{folder}: another job is writing there; wait")
            # The job that was refused has deleted nothing.
            assert list_files(folder) == [IN_PROGRESS_FILE]
            (folder / "written").touch()
        with start_writing(folder):
            pass
        assert list_files(folder) == [IN_PROGRESS_FILE, "written"]

    def test_no_folder_is_left_if_nothing_was_written(self, tmp_path):
        folder = tmp_path / "out"
        with start_writing(folder):
            OutputFolder(folder, DATASET).delete_unlisted_files(listed_files=())
        assert not folder.exists()

    def test_an_output_published_in_the_meantime_is_kept(self, tmp_path):
        commit_file = tmp_path / DATASET.commit_file
        commit_file.write_text(json.dumps({"format": DATASET.format}))
        error = pytest.raises(FerError, match="holds a dataset already; --overwrite")
        with error, start_writing(tmp_path):
            pytest.fail("the dataset was replaced")
        assert list_files(tmp_path) == [DATASET.commit_file]
        with OutputFolder(tmp_path, DATASET, overwrite=True).lock_for_writing():
            pass

    def test_a_killed_process_releases_the_folder(self, tmp_path):
        script = (
            "import sys, time\n"
            "from pathlib import Path\n"
            "from fer_pipeline.data.dataset_files import DATASET\n"
            "from fer_pipeline.io.output_folder import OutputFolder\n"
            "with OutputFolder(Path(sys.argv[1]), DATASET).lock_for_writing():\n"
            "    print('started', flush=True)\n"
            "    time.sleep(60)\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            busy = pytest.raises(FerError, match="another job is writing there")
            with busy, start_writing(tmp_path):
                pass
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        with start_writing(tmp_path):
            pass

    def test_a_lock_on_a_deleted_file_is_invalid(self, tmp_path, monkeypatch):
        """The previous job deletes the file after this one has opened it."""
        lock = fcntl.flock

        def delete_and_lock(*arguments):
            (tmp_path / IN_PROGRESS_FILE).unlink()
            lock(*arguments)

        monkeypatch.setattr(fcntl, "flock", delete_and_lock)
        busy = pytest.raises(FerError, match="another job is writing there")
        with busy, start_writing(tmp_path):
            pass

    def test_a_filesystem_without_locks_may_be_written(self, tmp_path, monkeypatch):
        def refuse_lock(*arguments):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(fcntl, "flock", refuse_lock)
        with start_writing(tmp_path), start_writing(tmp_path):
            (tmp_path / "written").touch()

    @KINDS
    def test_a_failure_deletes_new_data_files_and_keeps_the_published_ones(self, tmp_path, kind):
        published, new = format_data_file_name(kind, ID), format_data_file_name(kind, OTHER_ID)
        create_files(tmp_path, [published])
        (tmp_path / kind.commit_file).write_text(make_commit_document(kind, [published]))

        def fail() -> None:
            with OutputFolder(tmp_path, kind, overwrite=True).lock_for_writing():
                create_files(tmp_path, [new])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert list_files(tmp_path) == sorted([kind.commit_file, published])

    def test_a_failure_keeps_the_files_of_a_dataset_in_an_older_format(self, tmp_path):
        published, new = (
            format_data_file_name(DATASET, ID),
            format_data_file_name(DATASET, OTHER_ID),
        )
        create_files(tmp_path, [published])
        document = json.loads(make_commit_document(DATASET, [published])) | {"format_version": 1}
        (tmp_path / DATASET.commit_file).write_text(json.dumps(document))

        def fail() -> None:
            with OutputFolder(tmp_path, DATASET, overwrite=True).lock_for_writing():
                create_files(tmp_path, [new])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert list_files(tmp_path) == sorted([DATASET.commit_file, published])

    @pytest.mark.parametrize(
        "kind", [RUN, EVALUATION, COMPARISON, EXPORT], ids=lambda kind: kind.commit_file
    )
    def test_a_failure_keeps_files_with_fixed_names(self, tmp_path, kind):
        def fail() -> None:
            with OutputFolder(tmp_path, kind).lock_for_writing():
                create_files(tmp_path, kind.files)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert list_files(tmp_path) == sorted([*kind.files, IN_PROGRESS_FILE])
        # These are files of the job, so that the next job may replace them.
        OutputFolder(tmp_path, kind).ensure_writable()


class TestCommit:
    @KINDS
    def test_the_new_output_replaces_the_old_one(self, tmp_path, kind):
        old, new = format_data_file_name(kind, ID), format_data_file_name(kind, OTHER_ID)
        create_files(tmp_path, [old, CONFIG_FILE])
        (tmp_path / kind.commit_file).write_text(make_commit_document(kind, [old]))
        output_folder = OutputFolder(tmp_path, kind, overwrite=True)
        document = make_commit_document(kind, [new])
        files_at_config = []

        def write_config(path: Path) -> None:
            files_at_config.extend(list_files(tmp_path))
            assert (tmp_path / kind.commit_file).read_text() == document
            path.write_text("new")

        with output_folder.lock_for_writing():
            create_files(tmp_path, [new])
            output_folder.commit(document, write_config, data_files=[new])
        assert list_files(tmp_path) == sorted([kind.commit_file, CONFIG_FILE, new])
        assert (tmp_path / CONFIG_FILE).read_text() == "new"
        # Old files are deleted only after the commit.
        assert files_at_config == sorted(
            [kind.commit_file, CONFIG_FILE, IN_PROGRESS_FILE, old, new]
        )

    @KINDS
    def test_a_commit_that_fails_deletes_no_data_file(self, tmp_path, kind):
        """It may have reached the disk of a server that did not answer in time."""
        old, new = format_data_file_name(kind, ID), format_data_file_name(kind, OTHER_ID)
        create_files(tmp_path, [old])
        (tmp_path / kind.commit_file).write_text(make_commit_document(kind, [old]))

        def fail_to_write(path: Path) -> None:
            raise StorageError(f"{path}: cannot be written: No space left on device")

        def fail() -> None:
            output_folder = OutputFolder(tmp_path, kind, overwrite=True)
            with output_folder.lock_for_writing():
                create_files(tmp_path, [new])
                document = make_commit_document(kind, [new])
                output_folder.commit(document, fail_to_write, data_files=[new])

        with pytest.raises(StorageError):
            fail()
        assert list_files(tmp_path) == sorted([kind.commit_file, IN_PROGRESS_FILE, old, new])

    def test_obsolete_files_are_deleted(self, tmp_path):
        output_folder = OutputFolder(tmp_path, RUN)
        with output_folder.lock_for_writing():
            create_files(tmp_path, ["unfinished.yaml", "checkpoint.npz", "history.csv"])
            output_folder.commit("{}", Path.touch, obsolete_files=["unfinished.yaml", "none"])
        remaining_files = ["checkpoint.npz", CONFIG_FILE, "history.csv", RUN.commit_file]
        assert list_files(tmp_path) == sorted(remaining_files)


class TestInvalidateOldOutput:
    def test_only_the_commit_file_and_the_configuration_are_deleted(self, tmp_path):
        create_files(tmp_path, [EVALUATION.commit_file, CONFIG_FILE, *EVALUATION.files])
        OutputFolder(tmp_path, EVALUATION).invalidate_old_output()
        assert list_files(tmp_path) == sorted(EVALUATION.files)

    def test_an_empty_folder_is_allowed(self, tmp_path):
        OutputFolder(tmp_path, EVALUATION).invalidate_old_output()
        assert list_files(tmp_path) == []


class TestRequireFilesVisible:
    def test_a_missing_file_is_named(self, tmp_path):
        create_files(tmp_path, ["a"])
        OutputFolder(tmp_path, SCORES).require_files_visible(["a"])
        with pytest.raises(StorageError, match=r"\(b\).*a folder that all machines share"):
            OutputFolder(tmp_path, SCORES).require_files_visible(["a", "b"])

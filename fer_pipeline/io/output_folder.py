"""The output folder of a job, and the order in which its files are written.

The commit file of an output is a JSON file that describes the output and lists its data files, such
as `manifest.json` of a dataset. Each job writes it last, and atomically. Readers refuse a folder
that has no commit file.

The in-progress file marks a folder in which a job is writing, or was interrupted while writing.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fer_pipeline.errors import StorageError
from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import CONFIG_FILE, IN_PROGRESS_FILE, OutputKind

log = logging.getLogger(__name__)


class OutputFolder:
    """The folder of one output, which readers see either complete or not at all.

    A job calls these methods in this order. It calls `invalidate_old_output` only if it writes
    files with fixed names, because these overwrite the files of the old output::

        output = OutputFolder(path, EVALUATION, overwrite=overwrite)
        output.ensure_writable()
        ...  # compute the results
        with output.lock_for_writing():
            output.invalidate_old_output()
            ...  # write the files
            output.commit(commit_content, config.write)

    Attributes:
        path: Path of the folder, which need not exist yet.
        kind: Kind of the output.
        overwrite: Whether an existing output may be replaced.
    """

    def __init__(self, path: Path, kind: OutputKind, *, overwrite: bool = False) -> None:
        """Create the object; nothing is read or written.

        Args:
            path: Path of the folder, which need not exist yet.
            kind: Kind of the output, such as an evaluation, with the names of its files.
            overwrite: Whether an existing output may be replaced.
        """
        self.path = path
        self.kind = kind
        self.overwrite = overwrite
        self._is_committing = False

    def is_committed(self) -> bool:
        """Return whether the folder has a commit file, the JSON file that makes an output complete.

        The content of the file is not checked.
        """
        return storage.is_file(self.path / self.kind.commit_file)

    def is_in_progress(self) -> bool:
        """Return whether a job is writing to the folder, or was interrupted while writing."""
        return storage.exists(self.path / IN_PROGRESS_FILE)

    def ensure_writable(self) -> None:
        """Check that a job may write its output to the folder; call this before the work begins.

        A folder that does not exist, is empty, or has only files left behind by an interrupted job
        is accepted.

        Raises:
            StorageError: The path is a file, the folder has files that do not belong to this
                kind of output, it has an output and `overwrite` is not set, or this user must not
                write there.
        """
        storage.require_writable(self.path)
        if self._require_replaceable_output():
            return
        if storage.is_folder(self.path):
            # The files of an interrupted job may be replaced, but no other files.
            foreign_names = sorted(
                path.name for path in self.path.iterdir() if not self.kind.is_leftover(path)
            )
            if foreign_names:
                raise StorageError(
                    f"{self.path}: is not empty and not {self.kind.name}"
                    f" (it holds {foreign_names[0]}); choose another folder"
                )
        elif storage.exists(self.path):
            raise StorageError(f"{self.path}: is a file; choose a folder")

    def _require_replaceable_output(self) -> bool:
        """Check that an output in the folder, if there is one, may be replaced.

        Returns:
            Whether the folder holds an output.

        Raises:
            StorageError: The folder holds an output of a different kind, or `overwrite` is not set.
        """
        if not self.is_committed():
            return False
        if not self._has_matching_format():
            raise StorageError(
                f"{self.path / self.kind.commit_file}: is not the file of {self.kind.name};"
                " choose another folder"
            )
        if not self.overwrite:
            raise StorageError(
                f"{self.path}: holds {self.kind.name} already; --overwrite replaces it"
            )
        return True

    def _has_matching_format(self) -> bool:
        """Return whether the commit file, the JSON file of an output, states the expected format.

        False if the file is damaged, or is that of a different kind of output.
        """
        try:
            commit_content = json.loads(storage.read_text(self.path / self.kind.commit_file))
            return bool(commit_content.get("format") == self.kind.format)
        except (ValueError, AttributeError):
            return False

    def mark_in_progress(self) -> None:
        """Create the in-progress file `.unfinished`.

        It marks the files in the folder as written by a job, so that a later job may replace them
        if this job is interrupted.

        Raises:
            StorageError: The folder cannot be written.
        """
        storage.touch(self.path / IN_PROGRESS_FILE)

    @contextlib.contextmanager
    def lock_for_writing(self) -> Iterator[None]:
        """Lock the folder during a `with` block, so that no other job writes to it.

        The folder and the in-progress file `.unfinished` are created if necessary. On a filesystem
        without locks, two jobs may write at the same time; the job that calls `commit` last
        determines the output.

        If the block raises before it calls `commit`, its data files (files with unique names, such
        as Parquet files) and the in-progress file are deleted. If this kind of output has no data
        files, nothing is deleted; the in-progress file then shows later jobs that they may replace
        the files.

        Raises:
            StorageError: Another job is writing to the folder, the folder now has an output that
                may not be replaced, or the folder cannot be written.
        """
        was_in_progress = self.is_in_progress()
        try:
            self.mark_in_progress()
            with storage.try_lock(self.path / IN_PROGRESS_FILE) as has_lock:
                if not has_lock:
                    raise StorageError(
                        f"{self.path}: another job is writing there; wait for its end, or choose"
                        " another folder"
                    )
                try:
                    # Another job may have written its output since `ensure_writable`.
                    self._require_replaceable_output()
                except StorageError:
                    if not was_in_progress:
                        storage.remove(self.path / IN_PROGRESS_FILE)
                    raise
                yield from self._delete_data_files_on_failure()
        finally:
            # The folder is empty if the block wrote no file.
            storage.remove_empty_folder(self.path)

    def _delete_data_files_on_failure(self) -> Iterator[None]:
        """Yield once; if the `with` block raises before it calls `commit`, delete its data files.

        Data files are files with unique names, such as the Parquet files of a dataset. The
        in-progress file `.unfinished` is deleted with them. Data files that the commit file lists
        stay, because they belong to a complete output.

        If this kind of output has no data files, nothing is deleted.
        """
        self._is_committing = False
        try:
            yield
        except BaseException:
            # The commit file may have been written even if `commit` failed. Then its data files
            # must stay.
            if self.kind.data_folders and not self._is_committing:
                self.delete_unlisted_files(self.kind.list_data_files(self.path))
            raise

    def invalidate_old_output(self) -> None:
        """Delete the commit file and the configuration of the output that is being replaced.

        The commit file is the JSON file that readers require, so they no longer accept the old
        output. The configuration is deleted too, because without a commit file it could be mistaken
        for a user's own file.

        Raises:
            StorageError: A file cannot be deleted.
        """
        storage.remove(self.path / self.kind.commit_file)
        storage.remove(self.path / CONFIG_FILE)

    def commit(
        self,
        commit_content: str,
        write_config: Callable[[Path], None],
        *,
        data_files: Iterable[str] = (),
        obsolete_files: Iterable[str] = (),
    ) -> None:
        """Make the output valid: write its commit file, the JSON file that readers require.

        Then write the configuration, and delete the files that are no longer needed. The
        in-progress file `.unfinished` is deleted last.

        Args:
            commit_content: Content of the commit file, a JSON object with the key `format`.
            write_config: Function that writes the configuration to a path.
            data_files: Paths, relative to the folder, of the data files to keep: the files with
                unique names, such as Parquet files, that the commit file lists. All other data
                files are deleted.
            obsolete_files: Paths, relative to the folder, of further files to delete.

        Raises:
            StorageError: A file cannot be written or deleted.
        """
        self._is_committing = True
        storage.write_text(self.path / self.kind.commit_file, commit_content)
        write_config(self.path / CONFIG_FILE)
        for name in obsolete_files:
            storage.remove(self.path / name)
        self.delete_unlisted_files(data_files)

    def require_files_visible(self, data_files: Iterable[str]) -> None:
        """Check that the Spark driver sees the data files that the tasks wrote.

        Call this before `commit`, which makes the output valid.

        Args:
            data_files: Data files, relative to the folder.

        Raises:
            StorageError: A file is missing, because a task wrote it to the disk of its own machine.
        """
        missing_files = [name for name in data_files if not storage.is_file(self.path / name)]
        if missing_files:
            raise StorageError(
                f"{self.path}: the tasks wrote files that are not there ({missing_files[0]}); on a"
                " cluster the output must be a folder that all machines share"
            )

    def delete_unlisted_files(self, listed_files: Iterable[str]) -> None:
        """Delete unlisted data files, empty data folders, temporary files and the in-progress file.

        Data files are files with unique names, such as the Parquet files of a dataset. On a remote
        filesystem, data files younger than 24 hours stay, because a running job may have written
        them.

        Args:
            listed_files: Paths, relative to the folder, of the data files to keep: those that the
                commit file lists.

        Raises:
            StorageError: A file cannot be deleted.
        """
        if not storage.is_folder(self.path):
            return
        listed_paths = {self.path / name for name in listed_files}
        for data_folder in (self.path / name for name in self.kind.data_folders):
            if not storage.is_folder(data_folder):
                continue
            for path in data_folder.iterdir():
                is_unlisted = self.kind.is_data_file(path) and path not in listed_paths
                if is_unlisted and storage.is_abandoned(path):
                    storage.remove(path)
            if data_folder != self.path:
                storage.remove_empty_folder(data_folder)
        for path in self.path.iterdir():
            if self.kind.is_temporary(path):
                storage.remove(path)
        storage.remove(self.path / IN_PROGRESS_FILE)

    def delete_outdated_output(self) -> None:
        """Delete this output, such as an export, because the model it was made from is replaced.

        Files that do not belong to the output stay. The output is deleted only if the folder has
        the JSON file of this kind of output or the in-progress file `.unfinished`; otherwise its
        files may be the user's. Nothing is deleted if a path of the output is a symbolic link or
        has the wrong type (file or folder).

        An OSError or StorageError is only logged, as a warning, because publishing the new model
        must not fail.
        """
        try:
            if (self.is_committed() and self._has_matching_format()) or storage.is_file(
                self.path / IN_PROGRESS_FILE
            ):
                self._delete_output()
        except (OSError, StorageError) as error:
            log.warning(
                "%s: %s of the replaced model cannot be deleted: %s",
                self.path,
                self.kind.name,
                error,
            )

    def _delete_output(self) -> None:
        """Delete the files and subfolders of the output, and then its folder if that is empty.

        Raises:
            StorageError: A path of the output is a symbolic link or has the wrong type (file or
                folder), or a file cannot be deleted.
        """
        names = (self.kind.commit_file, CONFIG_FILE, *self.kind.files)
        files = [self.path / name for name in names]
        folders = [self.path / name for name in self.kind.folders]
        for path in (self.path, *files, *folders):
            has_expected_type = storage.is_file(path) if path in files else storage.is_folder(path)
            if path.is_symlink() or (storage.exists(path) and not has_expected_type):
                raise StorageError(
                    f"{path} is a symbolic link, or is not the file or folder that a job writes"
                )
        # If the deletion is interrupted, the in-progress file marks the remaining files as a job's.
        self.mark_in_progress()
        for path in files:
            storage.remove(path)
        for path in folders:
            storage.remove_folder(path)
        self.delete_unlisted_files(listed_files=())
        if not any(self.path.iterdir()):
            storage.remove_folder(self.path)

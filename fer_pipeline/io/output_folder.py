"""The folder that a job writes its output into, and the order of the writes.

Each job writes its commit file last and in one step. A folder without it holds no output that a
reader accepts.
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
    """The folder of one output: readers see the output whole or not at all.

    The sequence of a job, with `delete_commit_file` if it writes files with fixed names::

        output = OutputFolder(path, EVALUATION, overwrite=overwrite)
        output.ensure_writable()
        ...  # the work
        with output.lock_for_writing():
            output.delete_commit_file()
            ...  # the files
            output.commit(document, config.write)

    Attributes:
        path: The folder; it need not exist yet.
        kind: The kind of output that it holds or will hold.
        overwrite: Whether an existing output may be replaced.
    """

    def __init__(self, path: Path, kind: OutputKind, *, overwrite: bool = False) -> None:
        """Describe an output folder; nothing is read or written."""
        self.path = path
        self.kind = kind
        self.overwrite = overwrite
        self._is_committing = False

    def is_committed(self) -> bool:
        """Return whether the folder has a commit file, of whatever content."""
        return storage.is_file(self.path / self.kind.commit_file)

    def is_in_progress(self) -> bool:
        """Return whether a job is writing the output, or was interrupted while it did."""
        return storage.exists(self.path / IN_PROGRESS_FILE)

    def ensure_writable(self) -> None:
        """Check, before any work, that a job may write its output here.

        Raises:
            StorageError: There is an output already and `overwrite` is not set, or the folder
                holds files that no job of this kind wrote.
        """
        if self._may_replace():
            return
        if storage.is_folder(self.path):
            # What an interrupted job left may be replaced; anything else may not.
            foreign = sorted(
                path.name for path in self.path.iterdir() if not self.kind.is_leftover(path)
            )
            if foreign:
                raise StorageError(
                    f"{self.path}: is not empty and not {self.kind.name} (it holds {foreign[0]});"
                    " choose another folder"
                )
        elif storage.exists(self.path):
            raise StorageError(f"{self.path}: is a file; choose a folder")

    def _may_replace(self) -> bool:
        """Return whether there is an output that the job may replace; False if there is none.

        Raises:
            StorageError: There is one that it may not replace, or one of another kind.
        """
        if not self.is_committed():
            return False
        if not self._has_format():
            raise StorageError(
                f"{self.path / self.kind.commit_file}: is not the file of {self.kind.name};"
                " choose another folder"
            )
        if not self.overwrite:
            raise StorageError(
                f"{self.path}: holds {self.kind.name} already; --overwrite replaces it"
            )
        return True

    def _has_format(self) -> bool:
        try:
            document = json.loads(storage.read_text(self.path / self.kind.commit_file))
            return bool(document.get("format") == self.kind.format)
        except (ValueError, AttributeError):
            return False

    def mark_in_progress(self) -> None:
        """Mark the files that are written from here on as those of a job.

        Raises:
            StorageError: The folder cannot be written.
        """
        storage.touch(self.path / IN_PROGRESS_FILE)

    @contextlib.contextmanager
    def lock_for_writing(self) -> Iterator[None]:
        """Keep other jobs from writing here, from a job's first write to its end.

        A process that is killed releases its lock. On a filesystem without locks two jobs may
        write at the same time; then the last commit file decides which output is valid.

        If the block fails before its commit, the data files with unique names that it wrote are
        deleted. Files with fixed names stay: the in-progress file says that they are the job's.

        Raises:
            StorageError: Another job is writing here, or has published here since
                `ensure_writable`, or the folder cannot be written.
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
                    # Another job may have published here in the meantime.
                    self._may_replace()
                except StorageError:
                    if not was_in_progress:
                        storage.remove(self.path / IN_PROGRESS_FILE)
                    raise
                yield from self._discarding_on_failure()
        finally:
            # If nothing was written.
            storage.remove_empty_folder(self.path)

    def _discarding_on_failure(self) -> Iterator[None]:
        self._is_committing = False
        try:
            yield
        except BaseException:
            # A commit that fails may still have reached the disk: then its files must stay.
            if self.kind.data_folders and not self._is_committing:
                self.delete_unlisted_files(self.kind.list_data_files(self.path))
            raise

    def delete_commit_file(self) -> None:
        """Delete the commit file and the configuration of the output that is being replaced.

        From here on the old output is gone. Without its commit file, its configuration would look
        like a user's own file.

        Raises:
            StorageError: A file cannot be deleted.
        """
        storage.remove(self.path / self.kind.commit_file)
        storage.remove(self.path / CONFIG_FILE)

    def commit(
        self,
        document: str,
        write_config: Callable[[Path], None],
        *,
        data_files: Iterable[str] = (),
        obsolete_files: Iterable[str] = (),
    ) -> None:
        """Write the commit file, then the configuration, then delete what is stale.

        Args:
            document: Content of the commit file, JSON with the key `format`.
            write_config: Function that writes the configuration to a path.
            data_files: Data files that the commit file names, relative to the folder.
            obsolete_files: Files of the unfinished output that the finished one does not need.

        Raises:
            StorageError: A file cannot be written or deleted.
        """
        self._is_committing = True
        storage.write_text(self.path / self.kind.commit_file, document)
        write_config(self.path / CONFIG_FILE)
        for name in obsolete_files:
            storage.remove(self.path / name)
        self.delete_unlisted_files(data_files)

    def require_files_visible(self, data_files: Iterable[str]) -> None:
        """Check, before a commit file names them, that the driver sees the files of the tasks.

        Args:
            data_files: Data files, relative to the folder.

        Raises:
            StorageError: A file is missing: the tasks wrote to a disk of their own.
        """
        missing = [name for name in data_files if not storage.is_file(self.path / name)]
        if missing:
            raise StorageError(
                f"{self.path}: the tasks wrote files that are not there ({missing[0]}); on a"
                " cluster the output must be a folder that all machines share"
            )

    def delete_unlisted_files(self, keep: Iterable[str]) -> None:
        """Delete data files of older or interrupted jobs, and then the in-progress file.

        Args:
            keep: Data files that the commit file names, relative to the folder.

        Raises:
            StorageError: A file cannot be deleted.
        """
        if not storage.is_folder(self.path):
            return
        kept_paths = {self.path / name for name in keep}
        for data_folder in (self.path / name for name in self.kind.data_folders):
            if not storage.is_folder(data_folder):
                continue
            for path in data_folder.iterdir():
                is_stale = self.kind.is_data_file(path) and path not in kept_paths
                if is_stale and storage.is_abandoned(path):
                    storage.remove(path)
            if data_folder != self.path:
                storage.remove_empty_folder(data_folder)
        for path in self.path.iterdir():
            if self.kind.is_temporary(path):
                storage.remove(path)
        storage.remove(self.path / IN_PROGRESS_FILE)

    def delete_outdated_output(self) -> None:
        """Delete an output that no longer fits the model it was made of; other files stay.

        Never raises: the new model is already published, so a failed deletion is only logged as a
        warning. Nothing is deleted if the folder holds no such output, if the folder or a part of
        it is a symbolic link, or if a part is not the file or folder that a job writes.
        """
        try:
            if (self.is_committed() and self._has_format()) or storage.is_file(
                self.path / IN_PROGRESS_FILE
            ):
                self._delete()
        except (OSError, StorageError) as error:
            log.warning(
                "%s: %s of another model cannot be deleted: %s", self.path, self.kind.name, error
            )

    def _delete(self) -> None:
        """Delete all files of the output, and its folder if nothing else is in it.

        Raises:
            StorageError: A part of it is a link or not what a job writes, or cannot be deleted.
        """
        names = (self.kind.commit_file, CONFIG_FILE, *self.kind.files)
        files = [self.path / name for name in names]
        folders = [self.path / name for name in self.kind.folders]
        for path in (self.path, *files, *folders):
            has_type = storage.is_file(path) if path in files else storage.is_folder(path)
            if path.is_symlink() or (storage.exists(path) and not has_type):
                raise StorageError(f"{path} is a link, or of another type than a job writes there")
        # Until the last file is deleted, all of them stay recognisable as a job's.
        self.mark_in_progress()
        for path in files:
            storage.remove(path)
        for path in folders:
            storage.remove_folder(path)
        self.delete_unlisted_files(keep=())
        if not any(self.path.iterdir()):
            storage.remove_folder(self.path)

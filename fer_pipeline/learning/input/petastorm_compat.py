"""petastorm's `make_batch_reader`, also for versions of its dependencies that it does not support.

petastorm 0.12.1 uses names that pyarrow 15, NumPy 2 and Python 3.12 have removed. This module gives
petastorm's own modules a substitute for each of them; the packages themselves stay unchanged. The
substitutes suffice for reading a list of local Parquet files, or of files in a filesystem of
fsspec. Everything else fails: HDFS, partitions, filters, process pools, and writing. No other
module imports petastorm.
"""

from __future__ import annotations

import os
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


class LocalFilesystem:
    """Local files, with the methods of an fsspec filesystem that `ParquetDataset` needs.

    pyarrow reads its own files faster than Python's.
    """

    isfile = staticmethod(os.path.isfile)
    open = staticmethod(pa.OSFile)


class ParquetDatasetPiece:
    """A file, or a row group of it, like the class that pyarrow removed in version 15.

    Attributes:
        path: Path of the file.
        partition_keys: Empty; the files have no partitions.
    """

    partition_keys: tuple[()] = ()

    def __init__(
        self, path: str, open_file_func: Callable[[str], Any], row_group: int = 0, **_: Any
    ) -> None:
        """Create a piece.

        Args:
            path: Path of the file.
            open_file_func: Function that opens a path for reading.
            row_group: Index of the row group.
        """
        self.path = path
        self._row_group = row_group
        self._open = open_file_func

    def get_metadata(self) -> pq.FileMetaData:
        """Read the metadata of the file."""
        with self._open(self.path) as file:
            return pq.read_metadata(file)

    def read(self, columns: Iterable[str], partitions: None) -> pa.Table:
        """Read some columns of the row group."""
        with self._open(self.path) as file, pq.ParquetFile(file) as parquet:
            return parquet.read_row_group(self._row_group, list(columns))


class ParquetDataset:
    """Parquet files, like the class that pyarrow replaced in version 15.

    Attributes:
        fs: Filesystem of the files.
        paths: Paths of the files.
        pieces: The files.
        partitions: None, as there are no partitions.
        metadata: None; there is no file that describes all others.
        common_metadata: None, for the same reason.
    """

    partitions = metadata = common_metadata = None

    def __init__(self, path_or_paths: list[str], filesystem: Any, **_: Any) -> None:
        """Create a dataset of some files.

        Raises:
            OSError: A file is missing.
        """
        self.fs = filesystem
        self.paths = path_or_paths
        for path in path_or_paths:
            if not filesystem.isfile(path):
                raise OSError(f"{path}: no such file")
        self.pieces = [ParquetDatasetPiece(path, filesystem.open) for path in path_or_paths]


@contextmanager
def _stub_modules(modules: Mapping[str, types.ModuleType]) -> Iterator[None]:
    """Let imports within the block find these modules, by name, instead of the real ones."""
    real_modules = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, real_module in real_modules.items():
            if real_module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = real_module


def _make_module(name: str, real: types.ModuleType | None = None, **names: Any) -> types.ModuleType:
    """Return a module with the names of a real one, if there is one, and some more names."""
    module = types.ModuleType(name)
    vars(module).update(vars(real) if real else {}, **names)
    return module


# petastorm imports these modules, and does not need them for reading.
_STUBS = {
    "pyarrow.filesystem": _make_module("pyarrow.filesystem", LocalFileSystem=LocalFilesystem),
    "pyarrow.hdfs": _make_module("pyarrow.hdfs", HadoopFileSystem=object),
    "distutils": _make_module("distutils"),
    "distutils.version": _make_module("distutils.version", LooseVersion=None),
}

# petastorm warns at each call, even in its threads.
warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
with _stub_modules(_STUBS), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from petastorm import arrow_reader_worker, fs_utils, make_batch_reader, reader, unischema
    from petastorm.etl import dataset_metadata

fs_utils.pyarrow = _make_module("pyarrow", pa, localfs=LocalFilesystem())
unischema.np = arrow_reader_worker.np = _make_module(
    "numpy", np, unicode_=np.str_, string_=np.bytes_
)
reader.pq = arrow_reader_worker.pq = dataset_metadata.pq = _make_module(
    "pyarrow.parquet", pq, ParquetDataset=ParquetDataset, ParquetDatasetPiece=ParquetDatasetPiece
)

__all__ = ["make_batch_reader"]

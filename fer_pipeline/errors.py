"""Every error that a user can cause.

The entry points print such an error as one line, without a traceback, and end with its exit code.
Its message names what was got, what was expected and what to do. Any other exception is a mistake
of ours and keeps its traceback.

The tree::

    FerError
      + ConfigError
      + InputError
      |   + TooManyBadRowsError
      + DatasetError
      + RunError
      + StorageError
      + SparkStartError
      |   + JavaNotFoundError
      + ClusterError
      + WorkerLostError
"""


class FerError(Exception):
    """Every error that a user can cause; printed as one line with no traceback.

    Attributes:
        exit_code: The exit status of a process that ends with this error.
    """

    exit_code = 1


class SparkStartError(FerError):
    """Spark did not start."""


class JavaNotFoundError(SparkStartError):
    """No Java that can run Spark stands on this machine."""


class ClusterError(FerError):
    """The processes of a cluster cannot do together what they should."""


class WorkerLostError(FerError):
    """One of several workers that train together is gone; the others begin again."""


class ConfigError(FerError):
    """A key or a value of the configuration is wrong."""


class InputError(FerError):
    """A source is missing or is not what it should be."""


class TooManyBadRowsError(InputError):
    """More rows are quarantined than `input.max_quarantined_fraction` allows."""


class DatasetError(FerError):
    """A folder is no dataset, a broken one, or not the one that a job needs."""


class RunError(FerError):
    """A folder is no finished training run, or training cannot go on."""


class StorageError(FerError):
    """A path cannot be read or written."""

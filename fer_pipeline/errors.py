"""All errors that a user can cause.

An entry point prints such an error as one line, without a traceback, and exits with its exit code.
The message says what was wrong, what was expected and what to do. Any other exception is a bug in
this package and keeps its traceback.

* FerError
  * ConfigError                 a key or value of the configuration
  * InputError                  a source of images or labels
    * TooManyBadRowsError       more quarantined rows than are allowed
  * DatasetError                the folder of a dataset
  * RunError                    the folder of a training run, or the training
  * StorageError                a path that cannot be read or written
  * SparkStartError             the start of Spark
    * JavaNotFoundError         no Java that Spark can use
  * ClusterError                the processes of a cluster
  * WorkerLostError             a worker that disappeared
"""


class FerError(Exception):
    """An error that a user can cause; printed as one line without a traceback.

    Attributes:
        exit_code: Exit status of a process that ends with this error.
    """

    exit_code = 1


class ConfigError(FerError):
    """A key or value of the configuration is wrong."""


class InputError(FerError):
    """A source is missing, or does not have the expected content."""


class TooManyBadRowsError(InputError):
    """More rows are quarantined than the configuration allows."""


class DatasetError(FerError):
    """A folder is not a dataset, is damaged, or does not fit the job."""


class RunError(FerError):
    """A folder is not a finished training run, or training cannot continue."""


class StorageError(FerError):
    """A path cannot be read or written."""


class SparkStartError(FerError):
    """Spark did not start."""


class JavaNotFoundError(SparkStartError):
    """This machine has no Java version that can run Spark."""


class ClusterError(FerError):
    """The processes of a cluster cannot work together."""


class WorkerLostError(FerError):
    """One of several workers that train together is gone; the others start again."""

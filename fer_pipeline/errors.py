"""All errors that a user can cause.

A job prints such an error as one line, without a traceback, and exits with the error's exit code.
The message states the problem, the expected input and the remedy. Any other exception is a bug in
this package and keeps its traceback.

* FerError
  * ConfigError                 a key or value of the configuration
  * InputError                  a source of images or labels
    * TooManyBadRowsError       more quarantined rows than are allowed
    * UnreadableFileError       a file that cannot be opened, or not be read to its end
  * DatasetError                the folder of a dataset
  * RunError                    the folder of a training run, or the training
  * StorageError                a path that cannot be read or written
  * SparkStartError             the start of Spark
    * JavaNotFoundError         no Java that Spark can use
  * ClusterError                the processes of a cluster
  * WorkerLostError             a worker process that disappeared
  * MissingPackageError         a package that an extra of fer_pipeline would install
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
    """A source of images or labels is missing, or does not have the expected content."""


class TooManyBadRowsError(InputError):
    """More rows are quarantined than the configuration allows."""


class UnreadableFileError(InputError):
    """A file cannot be opened or an error occurs before its end, as in a damaged archive."""


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
    """The worker processes of a cluster cannot be started, or do not reach each other."""


class WorkerLostError(FerError):
    """One worker of a distributed training disappeared; all workers have to start again."""


class MissingPackageError(FerError, ImportError):
    """A package is not installed; the message names the extra of fer_pipeline that installs it."""

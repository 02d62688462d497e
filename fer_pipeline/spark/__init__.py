"""Code that runs on Spark, in the driver or in the Python workers; it does not use TensorFlow.

This file imports only what Python itself has loaded, so that `python -m fer_pipeline.spark.java`
takes only a fraction of a second and works without pyspark.
"""

import sys
import warnings
import zipimport

# pyspark 4.3 warns at each start that it recommends an older pandas. The jobs give Spark Arrow data
# and no pandas.
warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)

if sys.version_info < (3, 13) and "pyspark.worker" in sys.modules:
    # Spark's Python workers call importlib.invalidate_caches before each task, and until Python
    # 3.12 zipimport then reads the whole table of contents of each archive that modules were
    # imported from: 0.1 s of processor time for Spark's own pyspark.zip, more than a small task
    # needs. Python 3.13 only forgets it (https://github.com/python/cpython/issues/103200); a Python
    # worker lives no longer than its archives, so that it needs no other one.
    def _forget_archive(importer: zipimport.zipimporter) -> None:
        zipimport._zip_directory_cache.pop(importer.archive, None)  # type: ignore[attr-defined]

    zipimport.zipimporter.invalidate_caches = _forget_archive  # type: ignore[assignment,method-assign]

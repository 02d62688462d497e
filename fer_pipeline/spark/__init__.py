"""Code that runs on Spark, in the driver or in the Python workers; it does not use TensorFlow.

This file imports nothing, so that `python -m fer_pipeline.spark.java` takes only a fraction of a
second and works without pyspark.
"""

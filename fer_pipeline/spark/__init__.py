"""The Spark side: everything that needs a JVM. It knows nothing of TensorFlow.

This file imports nothing: `fer_pipeline.spark.java` has to answer in a fraction of a second,
before Spark is there.
"""

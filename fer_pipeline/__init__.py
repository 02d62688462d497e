"""Facial emotion recognition from FER2013: prepare, train, evaluate and score.

Data flows one way: raw -> prepared -> dataset on disk -> feed -> model -> trained -> evaluated
-> scored -> reported. The modules stand on three floors, each importing only downwards:

1. *pure*: numpy and OpenCV on plain arrays; no Spark, no TensorFlow, no petastorm;
2. `fer_pipeline.spark` and `fer_pipeline.learning` (TensorFlow), which meet on disk and nowhere
   else;
3. `fer_pipeline.stages`, which the entry points in `jobs/` call.
"""

__version__ = "0.1.0"

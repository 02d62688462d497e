"""The configuration: one typed tree for all jobs, from a YAML file and `--set key=value`."""

from fer_pipeline.config.keys import Config
from fer_pipeline.config.loading import load

__all__ = ["Config", "load"]

"""The configuration of all jobs: typed sections, read from a YAML file and `--set key=value`."""

from fer_pipeline.config.loader import load_config, load_stored_config
from fer_pipeline.config.schema import Config

__all__ = ["Config", "load_config", "load_stored_config"]

"""An object store for tests: a real server of the package moto, on the loopback interface."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from fer_pipeline.io.paths import get_filesystem, parse_path

BUCKET = "s3://faces"


@contextlib.contextmanager
def run_object_store() -> Iterator[dict[str, str]]:
    """Run a server with an empty bucket; yield the environment variables, which are also set."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
    }
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, setting in environment.items():
                patch.setenv(name, setting)
            # Otherwise fsspec reuses a client of an earlier server.
            get_filesystem(parse_path(BUCKET)).clear_instance_cache()
            client = get_filesystem(parse_path(BUCKET))
            # All servers of one process share their content, so the bucket may exist.
            client.makedirs(BUCKET.removeprefix("s3://"), exist_ok=True)
            yield environment
    finally:
        server.stop()
        # There may be an outer server, and its variables apply again.
        get_filesystem(parse_path(BUCKET)).clear_instance_cache()


def list_objects(url: str) -> set[str]:
    """Return the files in a folder of the store, relative to it."""
    folder = parse_path(url)
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

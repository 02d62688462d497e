"""An object store for tests: PyPI's moto, a real server on the loopback."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from fer_pipeline.io.paths import get_filesystem, parse_path

BUCKET = "s3://faces"


@contextlib.contextmanager
def served() -> Iterator[dict[str, str]]:
    """What the environment says of a server that has an empty bucket; it is set within."""
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
            for name, value in environment.items():
                patch.setenv(name, value)
            # Clients of an earlier server would be found again.
            get_filesystem(parse_path(BUCKET)).clear_instance_cache()
            client = get_filesystem(parse_path(BUCKET))
            # Servers of one process have what they hold in common.
            client.makedirs(BUCKET.removeprefix("s3://"), exist_ok=True)
            yield environment
    finally:
        server.stop()


def names(url: str) -> set[str]:
    """The files of a folder there, relative to it."""
    folder = parse_path(url)
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

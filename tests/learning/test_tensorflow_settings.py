"""What is said to TensorFlow before it is imported."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

SAYS = (
    "import os, sys, fer_pipeline.learning;"
    "assert 'tensorflow' not in sys.modules;"
    "print(os.environ.get('TF_ENABLE_ONEDNN_OPTS'))"
)


@pytest.mark.parametrize("users", [None, "0"])
def test_onednn_is_on_where_the_user_does_not_say(users) -> None:
    inherited = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    environment = inherited | ({} if users is None else {"TF_ENABLE_ONEDNN_OPTS": users})

    said = subprocess.check_output([sys.executable, "-c", SAYS], env=environment, text=True)

    # On other processors TensorFlow's own choice stands.
    ours = "1" if platform.machine().lower() in ("x86_64", "amd64") else "None"
    assert said.strip() == (users or ours)

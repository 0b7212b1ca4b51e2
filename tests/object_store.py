"""A server of Google Cloud Storage's interface on loopback, one for each test process."""

import atexit
import functools
import os
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

from mobile_video_jax.core.storage import storage_path
from tests.commands import ROOT

BUCKET = "clips"


def new_folder() -> Path:
    """A folder of the bucket that no other test uses. The processes that a test starts reach it as well."""
    _start()
    return storage_path(f"gs://{BUCKET}/{uuid.uuid4().hex[:8]}")


@functools.cache
def _start() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The variables with which gcsfs, google-cloud-storage (Orbax) and TensorStore are led to another server.
    host = f"http://127.0.0.1:{port}"
    os.environ |= {"STORAGE_EMULATOR_HOST": host, "TENSORSTORE_GCS_HTTP_URL": host, "GOOGLE_CLOUD_PROJECT": "tests"}
    os.environ["CLOUD_STORAGE_EMULATOR_ENDPOINT"] = host  # ArrayRecord's reader
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # it asks Google itself for the kind of bucket
    flags = ["--quiet", "--host=127.0.0.1", f"--port={port}", "--in-memory", f"--default-bucket={BUCKET}"]
    command = [sys.executable, "-m", "tests.object_store_server", "start", *flags]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(server.kill)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as client:
            if not client.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.02)
    raise AssertionError("the object store did not start")

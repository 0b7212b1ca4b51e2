"""What all tests share: programs are compiled once a test run, and quickly; no process outlives its test."""

import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import version

import pytest

# Set before jax is imported anywhere, and inherited by the processes that tests start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="compiled-"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# Tests compile far more than they compute: without LLVM's optimisations they take half the time, and without MLIR's
# fusions half of that. Releases from 0.11 have no other fusions, and refuse flags that they do not know.
FLAGS = ["--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest for their few tests come first, so that two workers end at about the same time."""
    items.sort(key=lambda item: item.get_closest_marker("first") is None)


@pytest.fixture(autouse=True)
def end_processes() -> Iterator[None]:
    """Kills the processes that a test started and, as it failed, did not wait for."""
    yield
    for process in multiprocessing.active_children():
        process.kill()
        process.join()

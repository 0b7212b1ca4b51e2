"""What all tests share: programs are compiled once a test run, and quickly; no process outlives its test."""

import gc
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import version

import pytest

from tests.array_types import check_array_types

# Set before jax is imported anywhere, and inherited by the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # programs for TPUs are compiled without asking whether there is one
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="compiled-"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# Tests compile far more than they compute: without LLVM's optimisations they take half the time, and without MLIR's
# fusions half of that. Releases from 0.11 have no other fusions, and refuse flags that they do not know.
FLAGS = ["--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):
    FLAGS += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
# Without where each operation comes from, programs are traced and lowered faster.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores, and torch's threads would wait for them busily
gc.disable()  # until all is imported, which leaves little garbage
check_array_types()


def pytest_collection_finish() -> None:
    """Garbage is collected seldom, as tracing makes much of it, and never looked for in what was imported."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(100_000, 50, 100)


def pytest_sessionfinish() -> None:
    """What a worker holds at its end is not looked through once more."""
    gc.freeze()


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

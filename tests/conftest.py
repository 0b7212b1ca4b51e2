"""What all tests share: programs are compiled once a test run, and quickly rather than for speed."""

import os
import tempfile
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

# Files that take longest for their few tests. They come first, so that two workers end at about the same time.
LONG = (
    "test_resume.py",
    "test_processes.py",
    "test_compile.py",
    "test_chain.py",
    "test_ablate.py",
    "test_dit_stage.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)

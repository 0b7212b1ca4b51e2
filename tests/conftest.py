"""What all tests share: programs are compiled once a test run, and quickly rather than for speed."""

import os
import tempfile

# Set before jax is imported anywhere, and inherited by the processes that tests start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="compiled-"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# Tests compile far more than they compute: without LLVM's optimisations they take half the time.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

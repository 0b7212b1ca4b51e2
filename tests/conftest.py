"""What all tests share: a compilation cache, so that processes of one test run compile a program once."""

import os
import tempfile

# Set before jax is imported anywhere, and inherited by the processes that tests start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="compiled-"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

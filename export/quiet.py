"""coremltools, without what it says where nothing is wrong."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

# "Failed to load _MLModelProxy" is normal where there is no macOS; torch 2.13 and scikit-learn 1.9 work, as tests show.
logging.getLogger("coremltools").setLevel(logging.ERROR)

import coremltools as ct  # noqa: E402

__all__ = ["ct", "quietly"]


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without coremltools' progress bars, and what torch 2.13 and Python say of its use of them."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.filterwarnings("ignore", "`torch.jit.trace", DeprecationWarning)
        warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.`", FutureWarning)
        warnings.filterwarnings("ignore", "Implicitly cleaning up <TemporaryDirectory", ResourceWarning)
        yield

"""The dtype in which gradients of linear layers are summed over devices, as a step is traced."""

import contextlib
import contextvars
from collections.abc import Iterator

_FLOAT32: contextvars.ContextVar[bool] = contextvars.ContextVar("gradients summed in float32", default=False)


def sums_in_float32() -> bool:
    """True where the gradients of parameters, which are float32, are not rounded to a layer's dtype before the sum."""
    return _FLOAT32.get()


@contextlib.contextmanager
def summed_in(dtype: str) -> Iterator[None]:
    """Traces gradients that are summed in `dtype`: "float32", or "bfloat16" where the layer computes in it."""
    token = _FLOAT32.set(dtype == "float32")
    try:
        yield
    finally:
        _FLOAT32.reset(token)

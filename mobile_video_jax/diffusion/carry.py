"""A value that a velocity carries from one evaluation of a sampler to the next."""

from collections.abc import Callable
from typing import Any

import jax


class Carry:
    """Holds `value`, which the body of a scan may read and replace; `scan` carries it beside the scan's own carry.

    For one scan inside one traced function: the value is that function's.
    """

    def __init__(self, value: Any):
        self.value = value

    def scan(self, body: Callable[[Any, Any], tuple[Any, Any]], init: Any, inputs: Any) -> tuple[Any, Any]:
        """jax.lax.scan; afterwards `value` is that of the last iteration."""

        def both(carry: tuple[Any, Any], entry: Any) -> tuple[tuple[Any, Any], Any]:
            own, self.value = carry
            own, output = body(own, entry)
            return (own, self.value), output

        (own, self.value), outputs = jax.lax.scan(both, (init, self.value), inputs)
        return own, outputs

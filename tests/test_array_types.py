"""The checks of array types are on, and only where there are arrays."""

import jax.numpy as jnp
import jaxtyping
import pytest

from mobile_video_jax.core.files import read_json
from mobile_video_jax.nn.attention.chunks import Frames
from mobile_video_jax.vae.pixels import to_signed
from tests.array_types import holds_arrays


def test_an_array_of_another_type_is_refused():
    assert to_signed(jnp.zeros((1, 2, 2, 2, 3), jnp.uint8)).min() == -1
    with pytest.raises(jaxtyping.TypeCheckError, match="checking the parameters of mobile_video_jax.vae.pixels"):
        to_signed(jnp.zeros((1, 2, 2, 2, 3), bool))


def test_arrays_are_found_within_other_types_and_other_functions_are_left_alone():
    assert holds_arrays(Frames) and holds_arrays(tuple[Frames, ...] | None) and not holds_arrays(list[int] | None)
    assert not hasattr(read_json, "__wrapped__") and hasattr(to_signed, "__wrapped__")

"""Published tensors become parameters and back; what does not fit is named."""

import jax
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.interop.mapping import CONV, LINEAR, Source, published, read_params, stacked

SOURCES = {
    "in/kernel": Source("proj.weight", LINEAR),
    "block_0/kernel": Source("blocks.0.weight", CONV),
    "block_1/kernel": Source("blocks.1.weight", CONV),
}
TENSORS = {
    "proj.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "blocks.0.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2, 1),
    "blocks.1.weight": -np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2, 1),
}


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, np.float32)


PLAIN = {"in": {"kernel": shape(3, 2)}} | {f"block_{i}": {"kernel": shape(2, 2, 1, 3, 2)} for i in range(2)}
SCANNED = {"in": PLAIN["in"], "blocks": {"block": {"kernel": shape(2, 2, 2, 1, 3, 2)}}}


@pytest.mark.parametrize(("sources", "shapes"), [(SOURCES, PLAIN), (stacked(SOURCES, 2), SCANNED)])
def test_there_and_back_is_the_identity(sources, shapes):
    params = read_params(TENSORS, sources, shapes, "net")
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, shapes)
    back = published(params, sources)
    assert back.keys() == TENSORS.keys()
    assert all(back[name].tobytes() == x.tobytes() and back[name].shape == x.shape for name, x in TENSORS.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": np.zeros(1, np.float32)}, "net: tensor extra has no place"),
        ({"proj.weight": None}, "net: tensor proj.weight is missing"),
        ({"proj.weight": np.zeros((2, 4), np.float32)}, r"shape \(2, 4\), which is \(4, 2\) here, not \(3, 2\)"),
        ({"proj.weight": np.zeros((2, 3), np.int8)}, "is of int8: use weights of floating point"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    tensors = {name: x for name, x in (TENSORS | change).items() if x is not None}
    with pytest.raises(UserError, match=message):
        read_params(tensors, SOURCES, PLAIN, "net")

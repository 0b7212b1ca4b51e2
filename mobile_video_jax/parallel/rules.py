"""The whole sharding plan of parameters: one table from logical axis names to mesh axes."""

from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.parallel.mesh import SEQUENCE

# The axis that matrix products contract over the residual width is cut by fsdp, the others by tensor.
RULES: dict[str, str | None] = {
    "embed": "fsdp",
    "heads": "tensor",
    "ffn": "tensor",
    "conv_in": None,
    "conv_out": "fsdp",
    "layers": None,
}

# Cutting a small tensor saves no memory worth the all-gather that it costs.
SMALLEST_SHARDED = 1 << 16


def partition_spec(names: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """The placement of one array by its axes' logical names; small arrays are kept whole on every device.

    Raises UserError for a mesh axis that would cut two axes of one array, and for an axis that does not divide.
    """
    size = 1
    for extent in shape:
        size *= extent
    if size < SMALLEST_SHARDED:
        return PartitionSpec()
    axes = tuple(RULES[name] if name is not None else None for name in names)
    used = [axis for axis in axes if axis is not None]
    if len(set(used)) < len(used):
        raise UserError(f"an array with axes {names} would use one mesh axis twice ({used}): change parallel/rules.py")
    for name, axis, extent in zip(names, axes, shape, strict=True):
        if axis is not None and extent % mesh.shape[axis]:
            raise UserError(f"axis '{name}' of {extent} does not divide over mesh.{axis}={mesh.shape[axis]}")
    return PartitionSpec(*axes)


def constrain_to_batch(x: jax.Array, name: str | None) -> jax.Array:
    """Keeps a layer's output where its input is: cut along the batch, and its last axis by tensor where it is named so.

    Left alone, XLA may cut the output as the kernel is cut, by fsdp, and gather the batch of all devices for it. Tokens
    [b n d] stay cut by sequence as well, where they divide (text need not). The mesh is that of x's type (see
    nn/attention/kernels.py); without one, or where the batch does not divide, x is as is.
    """
    mesh = jax.typeof(x).sharding.mesh
    shards = 1 if mesh.empty else mesh.shape["data"] * mesh.shape["fsdp"]
    if mesh.empty or x.shape[0] % shards:
        return x
    last = "tensor" if name is not None and RULES[name] == "tensor" else None
    free: tuple[Any, ...] = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 2)
    if has_sequence(x) and x.ndim == 3 and x.shape[1] % mesh.shape[SEQUENCE] == 0:
        free = (SEQUENCE,)
    spec = PartitionSpec(("data", "fsdp"), *free, last)
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def has_sequence(x: jax.Array) -> bool:
    """Whether the mesh that x lies on cuts clips along their tokens."""
    return SEQUENCE in jax.typeof(x).sharding.mesh.shape


def constrain_to_sequence(x: jax.Array) -> jax.Array:
    """Constrains a clip's tokens [b n d] to be sharded over the mesh's sequence axis, where it has one.

    Layers keep that sharding (constrain_to_batch), and attention gathers keys and values. Returns x unchanged where the
    batch does not divide. Raises UserError where the tokens do not.
    """
    mesh = jax.typeof(x).sharding.mesh
    size = mesh.shape.get(SEQUENCE, 1)
    if size == 1 or x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return x
    if x.shape[1] % size:
        raise UserError(f"clips of {x.shape[1]} tokens do not divide over mesh.{SEQUENCE}={size}: use a divisor")
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(("data", "fsdp"), SEQUENCE)))


def parameter_shardings(boxed: Any, mesh: Mesh) -> Any:
    """Shardings of a tree of (abstract) parameters that still carry their logical axis names."""

    def place(leaf: Any) -> NamedSharding:
        names = leaf.names if isinstance(leaf, nn.LogicallyPartitioned) else (None,) * leaf.ndim
        return NamedSharding(mesh, partition_spec(names, jax.tree.leaves(leaf)[0].shape, mesh))

    return jax.tree.map(place, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned))

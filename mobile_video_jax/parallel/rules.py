"""Sharding of parameters and activations: one table from logical axis names to mesh axes."""

import math
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.parallel.mesh import SEQUENCE

# The residual width is sharded over fsdp, heads and FFN channels over tensor.
RULES: dict[str, str | None] = {
    "embed": "fsdp",
    "heads": "tensor",
    "ffn": "tensor",
    "conv_in": None,
    "conv_out": "fsdp",
    "layers": None,
}

# Sharding a smaller array saves less memory than its all-gather costs time.
MIN_SHARDED_SIZE = 1 << 16


def partition_spec(names: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Sharding of one array by its axes' logical names; small arrays are replicated.

    Raises UserError where one mesh axis would shard two axes of an array, and for an axis that does not divide.
    """
    if math.prod(shape) < MIN_SHARDED_SIZE:
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
    """Constrains a layer's output to be sharded over batch (data, fsdp), and its last axis `name` over tensor if it is.

    Without it XLA may propagate the kernel's fsdp sharding to the output and all-gather the batch. Tokens [b n d] stay
    sharded over sequence where they divide (text need not). The mesh is that of x's type (see platform_of in
    nn/attention/kernels.py). Returns x unchanged without a mesh, or where the batch does not divide.
    """
    mesh = jax.typeof(x).sharding.mesh
    shards = 1 if mesh.empty else mesh.shape["data"] * mesh.shape["fsdp"]
    if mesh.empty or x.shape[0] % shards:
        return x
    last = "tensor" if name is not None and RULES[name] == "tensor" else None
    middle: tuple[Any, ...] = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 2)
    if has_sequence(x) and x.ndim == 3 and x.shape[1] % mesh.shape[SEQUENCE] == 0:
        middle = (SEQUENCE,)
    return _constrained(x, mesh, PartitionSpec(("data", "fsdp"), *middle, last))


def has_sequence(x: jax.Array) -> bool:
    """True where the mesh in x's type has a sequence axis."""
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
    return _constrained(x, mesh, PartitionSpec(("data", "fsdp"), SEQUENCE))


def constrain_to_rows(video: jax.Array) -> jax.Array:
    """Constrains clips [b t h w c] to have their pixel rows over the mesh's tensor axis, as in encoding.

    XLA exchanges the rows that convolutions reach over. Returns them unchanged without a mesh, or where the batch
    does not divide.
    """
    mesh = jax.typeof(video).sharding.mesh
    if mesh.empty or mesh.shape["tensor"] == 1 or video.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return video
    return _constrained(video, mesh, PartitionSpec(("data", "fsdp"), None, "tensor"))


def _constrained(x: jax.Array, mesh: AbstractMesh, spec: PartitionSpec) -> jax.Array:
    constrained: jax.Array = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
    return constrained


def parameter_shardings(boxed: Any, mesh: Mesh) -> Any:
    """Shardings of a tree of (abstract) parameters that are boxed with their logical axis names."""

    def sharding(leaf: Any) -> NamedSharding:
        names = leaf.names if isinstance(leaf, nn.LogicallyPartitioned) else (None,) * leaf.ndim
        return NamedSharding(mesh, partition_spec(names, jax.tree.leaves(leaf)[0].shape, mesh))

    return jax.tree.map(sharding, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned))

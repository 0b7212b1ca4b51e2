"""Fused attention kernels for TPUs and GPUs, which never hold the logits of all queries and keys at once."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Shaped

from mobile_video_jax.nn.attention.head_loop import head_attend
from mobile_video_jax.parallel.mesh import SEQUENCE
from mobile_video_jax.parallel.remat import SAVED_ATTENTION

KeyMask = Bool[Array, "#b 1 m"]

# Of the loop over heads. On 2 cores of an AMD EPYC it is 0.6 times as fast as XLA at 77 keys, 2.6 times at 336.
MIN_KEYS = 128

# Vector registers of a TPU are 128 wide. The largest blocks of the kernel, unless splash_blocks says otherwise: 1,344
# tokens take three of 512 queries and one of 1,408 keys, and compile within the memory that every generation gives a
# kernel without flags; one of 1,408 queries beside it does not.
LANES = 128
MAX_QUERIES, MAX_KEYS = 512, 1536

# Shardings of projections (parallel/rules.py): the batch over data and fsdp, heads over tensor. Queries may also be
# sharded over sequence; keys and values are not, as every query sees all keys.
KEY_SPEC = PartitionSpec(("data", "fsdp"), None, "tensor")
SEQUENCE_SPEC = PartitionSpec(("data", "fsdp"), SEQUENCE, "tensor")
MASK_SPEC = PartitionSpec(("data", "fsdp"))


_BLOCKS: contextvars.ContextVar[tuple[int, int]] = contextvars.ContextVar("blocks", default=(MAX_QUERIES, MAX_KEYS))


@contextlib.contextmanager
def splash_blocks(queries: int, keys: int) -> Iterator[None]:
    """Traces the TPUs' kernel with blocks of at most so many queries and keys, rounded up to LANES."""
    token = _BLOCKS.set((queries, keys))
    try:
        yield
    finally:
        _BLOCKS.reset(token)


_PLAIN: contextvars.ContextVar[bool] = contextvars.ContextVar("plain attention", default=False)


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Traces attention without kernels, which have no forward-mode derivative."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def kernels(
    q: Float[Array, "b n h d"], k: Float[Array, "b m h d"], mask: Bool[Array, "#b #n m"] | None
) -> dict[str, Callable[..., Any]]:
    """Kernels that fit these queries and keys, by platform as lax.platform_dependent names it.

    Over several TPUs the mesh must be in q's type (see platform_of): without it JAX refuses the kernel.
    """
    platform = "" if _PLAIN.get() else platform_of(q)
    if platform == "cpu" and head_loop_fits(q, k, mask):
        return {"cpu": head_attend}
    if platform == "tpu" and splash_fits(q, mask):
        return {"tpu": splash_attend}
    if platform == "gpu" and cudnn_fits(q, mask):
        return {"cuda": cudnn_attend}
    return {}


def platform_of(x: Shaped[Array, "..."]) -> str:
    """Platform that x is computed on: that of the mesh in its type, or without one that of the default backend.

    JAX puts the mesh into types where a jitted function's arguments are sharded over it, where they are
    ShapeDtypeStructs with a sharding (ahead-of-time compilation), and under jax.set_mesh.
    """
    mesh = jax.typeof(x).sharding.mesh
    platform: str = jax.default_backend() if mesh.empty else mesh.abstract_device.platform
    return platform


def head_loop_fits(q: Float[Array, "b n h d"], k: Float[Array, "b m h d"], mask: Bool[Array, "#b #n m"] | None) -> bool:
    """True where head_attend is faster: not with few keys, nor on a mesh, as XLA cannot shard its loop."""
    mesh = jax.typeof(q).sharding.mesh
    single_device: bool = mesh.empty or mesh.size == 1
    return single_device and k.shape[1] >= MIN_KEYS and (mask is None or mask.shape[1] == 1)


def splash_fits(q: Float[Array, "b n h d"], mask: Bool[Array, "#b #n m"] | None) -> bool:
    """True where splash_attend takes these shapes and is faster: with fewer queries than lanes most work is padding."""
    b, n, heads, head_dim = q.shape
    mesh = jax.typeof(q).sharding.mesh
    sequence = mesh.shape.get(SEQUENCE, 1)
    divides = mesh.empty or not (b % (mesh.shape["data"] * mesh.shape["fsdp"]) or heads % mesh.shape["tensor"])
    fills_lanes = n % sequence == 0 and n // sequence >= LANES
    one_mask_for_all_queries = mask is None or mask.shape[1] == 1
    kernel_takes = head_dim % 64 == 0 and q.dtype in (jnp.bfloat16, jnp.float32)
    return bool(divides and fills_lanes and one_mask_for_all_queries and kernel_takes)


def splash_attend(
    q: Float[Array, "b n h d"],
    k: Float[Array, "b m h d"],
    v: Float[Array, "b m h d"],
    mask: KeyMask | None = None,
    *,
    interpret: bool = False,
) -> Float[Array, "b n h d"]:
    """nn.attention.layer.attend by JAX's splash kernel for TPUs, a FlashAttention (arXiv 2205.14135).

    XLA cannot shard a kernel, so on a mesh each device runs it on its shard of the batch and heads, which must divide.
    Each clip needs at least one unmasked key. `interpret` runs the kernel without a TPU.
    """
    valid = jnp.ones((1, k.shape[1]), bool) if mask is None else mask[:, 0]
    valid = jnp.broadcast_to(valid, k.shape[:2])
    local = functools.partial(_splash, interpret=interpret)
    mesh = jax.typeof(q).sharding.mesh
    if mesh.empty:
        return local(q, k, v, valid)
    query_spec = SEQUENCE_SPEC if SEQUENCE in mesh.shape else KEY_SPEC
    in_specs = (query_spec, KEY_SPEC, KEY_SPEC, MASK_SPEC)
    # The check of replicated outputs does not know Pallas kernels, and no output here is replicated.
    sharded = jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=query_spec, check_vma=False)
    return sharded(q, k, v, valid)


def _splash(
    q: Float[Array, "b n h d"],
    k: Float[Array, "b m h d"],
    v: Float[Array, "b m h d"],
    valid: Bool[Array, "b m"],
    interpret: bool,
) -> Float[Array, "b n h d"]:
    """Scales the queries, as the kernel does not, and pads all arrays to whole blocks, with padded keys masked."""
    b, n, heads, head_dim = q.shape
    (block_q, padded_n), (block_kv, padded_m) = map(blocks, (n, k.shape[1]), _BLOCKS.get())
    kernel = splash.make_splash_mha_single_device(
        splash.MultiHeadMask([splash.FullMask((padded_n, padded_m))] * heads),
        block_sizes=splash.BlockSizes(
            block_q=block_q,
            block_kv=block_kv,
            block_q_dkv=block_q,
            block_kv_dkv=block_kv,
            use_fused_bwd_kernel=True,
        ),
        residual_checkpoint_name=SAVED_ATTENTION,
        interpret=interpret,
    )
    q = (q.astype(jnp.float32) * head_dim**-0.5).astype(q.dtype)
    q, k, v = (_padded(x, size).swapaxes(1, 2) for x, size in ((q, padded_n), (k, padded_m), (v, padded_m)))
    # A query sees the keys of its own segment: all queries are in segment 1, masked keys in segment 0.
    segments = splash.SegmentIds(jnp.ones((b, padded_n), jnp.int32), _padded(valid, padded_m).astype(jnp.int32))
    out: jax.Array = jax.vmap(kernel)(q, k, v, segments)
    return out.swapaxes(1, 2)[:, :n]


def blocks(length: int, most: int) -> tuple[int, int]:
    """Size of the fewest blocks of at most `most` that cover a length, a multiple of 128, and the length they cover."""
    count = -(-length // most)
    size = -(-length // (count * LANES)) * LANES
    return size, count * size


def _padded(x: Shaped[Array, "b n *rest"], length: int) -> Shaped[Array, "b length *rest"]:
    return jnp.pad(x, [(0, 0), (0, length - x.shape[1])] + [(0, 0)] * (x.ndim - 2))


def cudnn_fits(q: Float[Array, "b n h d"], mask: Bool[Array, "#b #n m"] | None) -> bool:
    """True where cuDNN's flash attention takes these shapes on this host's GPU, an NVIDIA Ampere or newer.

    It takes a mask only as a bias as large as the logits of one head, with its gradient, so masked attention is XLA's.
    """
    if jax.default_backend() != "gpu" or mask is not None or q.dtype not in (jnp.bfloat16, jnp.float16):
        return False
    # "9.0" on a Hopper; AMD's start with "gfx".
    generation: str = jax.local_devices()[0].compute_capability.split(".")[0]
    # The backward pass refuses odd lengths.
    shapes_fit = q.shape[-1] % 8 == 0 and q.shape[-1] <= 128 and q.shape[1] % 2 == 0
    return generation.isdecimal() and int(generation) >= 8 and shapes_fit


def cudnn_attend(
    q: Float[Array, "b n h d"], k: Float[Array, "b m h d"], v: Float[Array, "b m h d"], mask: None = None
) -> Float[Array, "b n h d"]:
    """nn.attention.layer.attend by cuDNN's flash attention, for fp16 and bf16."""
    return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")

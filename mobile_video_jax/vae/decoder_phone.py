"""Time and memory of decoding a clip on the phone, estimated from shapes alone."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.cost.phone.ops import HALF, Op
from mobile_video_jax.cost.phone.roofline import call_seconds
from mobile_video_jax.cost.phone.trace import ops_of_call
from mobile_video_jax.nn.module import init
from mobile_video_jax.nn.stream import STREAM


@dataclasses.dataclass(frozen=True)
class DecoderCost:
    """Cost of decoding a clip on the phone, in fp16."""

    seconds: float  # of all calls of the decoder
    bytes: int  # of weights, the stream's state, and the values of the op that has the most


def decoder_cost(vae: nn.Module, strides: Compression, clip: ClipShape, *, streams: bool = True) -> DecoderCost:
    """The cost of a VAE's decoder, called for each latent frame or, unless it `streams`, once for the whole clip.

    Values that wait for a later op, as a residual does, are not in its bytes.
    """
    frames, rows, columns = clip.latent(strides)
    image = jnp.zeros((1, 1, strides.space, strides.space, 3))
    params = nn.unbox(jax.eval_shape(lambda: init(vae, jax.random.key(0), image)))
    weights = {"params": {"decoder": params["decoder"]}}
    latents = jax.ShapeDtypeStruct((1, 1 if streams else frames, rows, columns, strides.channels), jnp.float32)
    if not streams:
        ops = ops_of_call(lambda weights, z: vae.apply(weights, z, method="decode"), weights, latents)
        return DecoderCost(call_seconds(ops), _bytes(weights) + _most(ops))

    def decode(weights: Any, state: Any, z: Any) -> Any:
        return vae.apply({**weights, **state}, z, method="decode", mutable=[STREAM])

    _, state = jax.eval_shape(decode, weights, {}, latents)
    first, later = ops_of_call(decode, weights, {}, latents), ops_of_call(decode, weights, state, latents)
    seconds = call_seconds(first) + (frames - 1) * call_seconds(later)
    return DecoderCost(seconds, _bytes(weights) + _bytes(state) + _most([*first, *later]))


def _bytes(tree: Any) -> int:
    return HALF * count_parameters(tree)


def _most(ops: Sequence[Op]) -> int:
    return max(sum(value.bytes for value in op.values) for op in ops)

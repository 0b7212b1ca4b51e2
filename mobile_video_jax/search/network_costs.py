"""The cost table of a transformer on the phone, estimated from its own traced network."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from mobile_video_jax.core.config import plain
from mobile_video_jax.core.revision import digest
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.cost.phone.roofline import call_seconds
from mobile_video_jax.cost.phone.table import PHONE
from mobile_video_jax.cost.phone.trace import ops_of_network
from mobile_video_jax.models.config import DenoiserConfig
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.search.costs import Costs, CostTable, measured_table
from mobile_video_jax.search.space import Layout, Space
from mobile_video_jax.search.supernet import layout_denoiser


def phone_table(denoiser: Denoiser, space: Space) -> CostTable:
    """The table of one call for one clip of the denoiser's shape, from networks of one and of two blocks."""
    costs_of = functools.partial(network_costs, denoiser)
    return measured_table(space, costs_of, f"estimate for {PHONE}", network_digest(denoiser))


def network_costs(denoiser: Denoiser, layout: Layout) -> Costs:
    """The costs of a whole network of this layout: milliseconds by the phone's fitted roofline (cost/phone)."""
    return traced_costs(layout_denoiser(denoiser, layout).config)


@functools.cache  # tracing takes seconds
def traced_costs(config: DenoiserConfig) -> Costs:
    """The costs of one call of a network for one clip, traced whole."""
    network = Denoiser(config)
    shapes, t = network.input_shapes(1), jax.ShapeDtypeStruct((1,), jnp.float32)
    ops = ops_of_network(network.network, shapes["latents"], t, shapes["text"], shapes["text_mask"])
    return Costs(
        milliseconds=1e3 * call_seconds(ops),
        flops=float(sum(op.flops for op in ops)),
        parameters=float(count_parameters(network.parameter_shapes)),
        peak_bytes=float(max(sum(value.bytes for value in op.values) for op in ops)),
    )


def network_digest(denoiser: Denoiser) -> str:
    """A digest of what a table depends on: clips, captions and the sizes of blocks, however many."""
    model = dataclasses.replace(
        denoiser.config.transformer, depth=1, layout=(), scan=False, remat="none", dtype="float32"
    )
    config = denoiser.config
    return digest([plain(model), config.clip, config.compression, config.text_width, config.text_tokens])

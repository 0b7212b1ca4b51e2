"""Sources of linear layers and attentions under diffusers' names, shared by the transformers that it publishes."""

import numpy as np

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.interop.mapping import AS_IS, LINEAR, Layout, Source

PROJECTIONS = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
NORMS = {"q_norm": "norm_q", "k_norm": "norm_k"}


def linear(ours: str, theirs: str, order: Layout = AS_IS) -> dict[str, Source]:
    """Sources of a linear layer; `order` is the layout of its output channels."""

    def kernel_to_ours(x: np.ndarray) -> np.ndarray:
        return LINEAR.to_ours(order.to_ours(x))

    def kernel_to_published(x: np.ndarray) -> np.ndarray:
        return order.to_published(LINEAR.to_published(x))

    return {
        f"{ours}/kernel": Source(f"{theirs}.weight", Layout(kernel_to_ours, kernel_to_published)),
        f"{ours}/bias": Source(f"{theirs}.bias", order),
    }


def attention(ours: str, theirs: str, order: Layout) -> dict[str, Source]:
    """Sources of an attention; `order` is the layout of the channels of queries and keys."""
    sources = {f"{ours}/{name}/scale": Source(f"{theirs}.{norm}.weight", order) for name, norm in NORMS.items()}
    for name, projection in PROJECTIONS.items():
        sources |= linear(f"{ours}/{name}", f"{theirs}.{projection}", order if name in ("q", "k") else AS_IS)
    return sources


def rope_layout(config: DitConfig) -> Layout:
    """Order of a head's channels: RoPE rotates pairs (x[2j], x[2j+1]) there and (x[j], x[j + d/2]) here.

    Raises UserError for a head of an odd number of channels.
    """
    if config.head_dim % 2:
        raise UserError(f"config.json: attention_head_dim={config.head_dim} is odd: RoPE turns pairs of channels")
    published = np.arange(config.width).reshape(config.heads, -1, 2)
    order = published.swapaxes(1, 2).ravel()
    inverse = np.argsort(order)
    return Layout(lambda x: x[order], lambda x: x[inverse])

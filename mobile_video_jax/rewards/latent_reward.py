"""Latent reward: the probability that a noisy clip becomes a right one, from a transformer's first blocks.

PRFL (arXiv 2511.21541): a learned query attends over all tokens of the blocks' output, and an MLP of three layers reads
what it gathers. No clip is decoded.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.features import Backbone, backbone_params, first_blocks
from mobile_video_jax.dit.model import BackboneOutput
from mobile_video_jax.nn.attention.layer import Attention
from mobile_video_jax.nn.dense import Dense, zeros
from mobile_video_jax.nn.module import partitioned, traced_apply
from mobile_video_jax.nn.norm import rms_normalize
from mobile_video_jax.rewards.config import RewardConfig

Logits = Float[Array, "b"]


class RewardHead(nn.Module):
    """The query's attention over tokens and the MLP; a fresh one returns 0 for every clip."""

    heads: int
    head_dim: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: BackboneOutput) -> Logits:
        x, mask = rms_normalize(features.x), features.conditions.token_mask
        b, _, d = x.shape
        query = self.param("query", partitioned(nn.initializers.normal(1.0), (None, "embed")), (1, d))
        queries = jnp.broadcast_to(query.astype(x.dtype), (b, 1, d))
        attention = Attention(self.heads, self.head_dim, dtype=self.dtype, name="attention")
        gathered = queries + attention(queries, x, mask=None if mask is None else mask[:, None, :])
        hidden = rms_normalize(gathered[:, 0].astype(jnp.float32))
        for name in ("in", "middle"):
            hidden = nn.gelu(Dense(d, ("embed", None), name=name)(hidden), approximate=True)
        return Dense(1, ("embed", None), zeros, name="logit")(hidden)[:, 0]


@dataclasses.dataclass(frozen=True)
class LatentReward:
    """Logits of noisy clips being right. Parameters: "backbone", the transformer's first blocks, and "head"."""

    backbone: Backbone
    head: RewardHead

    def init(self, rng: jax.Array, *inputs: Any) -> Any:
        """Random parameters, each with its logical axis names; `inputs` are those of the transformer."""
        backbone = self.backbone.init(rng, *inputs)["params"]
        features = self.backbone.apply({"params": nn.unbox(backbone)}, *inputs)
        return {"backbone": backbone, "head": self.head.init(rng, features)["params"]}

    def logits(self, params: Any, *inputs: Any) -> Logits:
        """Positive for clips that are rather right; `inputs` are x_t, t, text states, text mask and a latent mask."""
        features = traced_apply(self.backbone, params["backbone"], *inputs)
        logits: Logits = traced_apply(self.head, params["head"], features)
        return logits

    def started(self, network: Any, names: Iterable[str]) -> Any:
        """The backbone's parameters, of these names, out of the whole transformer's."""
        params = backbone_params(self.backbone, network)
        return {name: params[name] for name in names}


def make_latent_reward(network: DitConfig, config: RewardConfig) -> LatentReward:
    """The reward on a transformer's first blocks. Raises UserError for more blocks than the transformer has."""
    depth = len(network.block_shapes)
    if config.reward_blocks > depth:
        raise UserError(f"a transformer of {depth} blocks has no first {config.reward_blocks}: lower reward_blocks")
    head = RewardHead(network.width // network.head_dim, network.head_dim, network.dtype)
    return LatentReward(first_blocks(network, config.reward_blocks), head)

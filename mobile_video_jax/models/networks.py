"""The networks that predict a velocity, by the class of their config: the one place that tells them apart.

Each is called as network(x_t, t, text, text_mask, mask=None) and returns a velocity of the shape of x_t. Its config has
`dtype`, the dtype that it computes in, and `remat`, which activations are computed again in the backward pass.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from mobile_video_jax.core.arrays import Latents
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.cost_groups import cost_group
from mobile_video_jax.dit.features import CrossLogits, velocity_and_cross_logits, velocity_and_features
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.unet import cost_groups as unet_cost_groups
from mobile_video_jax.unet.config import UnetConfig
from mobile_video_jax.unet.features import velocity_and_level_features
from mobile_video_jax.unet.model import Unet

NetworkConfig = DitConfig | UnetConfig


@dataclasses.dataclass(frozen=True)
class Family:
    """One kind of network.

    `features(network, params, *inputs)` are its velocity and the features that a student is compared by; `cost_group`
    names the part of the network that costs of a parameter's path or a module's scope are counted under;
    `cross_logits(network, params, *inputs)` are its velocity and its mean logits of cross-attention, if it has any.
    """

    module: Callable[[Any], nn.Module]
    features: Callable[..., tuple[Latents, Any]]
    cost_group: Callable[[str], str]
    cross_logits: Callable[..., tuple[Latents, CrossLogits]] | None = None


FAMILIES: dict[type, Family] = {
    DitConfig: Family(Dit, velocity_and_features, cost_group, velocity_and_cross_logits),
    UnetConfig: Family(Unet, velocity_and_level_features, unet_cost_groups.cost_group),
}


def family_of(config: NetworkConfig) -> Family:
    """The family of a network's config."""
    return FAMILIES[type(config)]


def build_network(config: NetworkConfig) -> Any:
    """The module of a network's config, without parameters."""
    return family_of(config).module(config)


def as_transformer(config: NetworkConfig) -> DitConfig:
    """The config, for what can be done with a transformer alone. Raises UserError for that of another network."""
    if not isinstance(config, DitConfig):
        raise UserError(f"this takes a transformer, not a network of family '{config.family}': name another run")
    return config

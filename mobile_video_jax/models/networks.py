"""The networks that predict a velocity, by the class of their config: the one place that tells them apart.

Each is called as network(x_t, t, text, text_mask, mask=None) and returns a velocity of the shape of x_t. Its config has
`dtype`, the dtype that it computes in, and `remat`, which activations are computed again in the backward pass.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Latents
from mobile_video_jax.distill.config import DiscriminatorConfig
from mobile_video_jax.distill.discriminator import Discriminator, make_discriminator
from mobile_video_jax.distill.unet_discriminator import make_unet_discriminator
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.cost_groups import cost_group
from mobile_video_jax.dit.features import (
    CrossLogits,
    Features,
    velocity_and_cross_logits,
    velocity_and_features,
    velocity_and_maps,
)
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.models.network_config import NetworkConfig
from mobile_video_jax.unet import cost_groups as unet_cost_groups
from mobile_video_jax.unet.config import UnetConfig
from mobile_video_jax.unet.features import velocity_and_maps as unet_velocity_and_maps
from mobile_video_jax.unet.model import Unet

Maps = tuple[Float[Array, "b t h w d"], ...]  # each with sizes of its own


@dataclasses.dataclass(frozen=True)
class Family:
    """One kind of network.

    `maps(network, params, *inputs)` are its velocity and feature maps [b t h w d], those of later layers last, and
    `features(…)`, if it has any, its velocity and the features [l b n d] of equal blocks; `cost_group`
    names the part of the network that costs of a parameter's path or a module's scope are counted under;
    `discriminator(config, settings)` reads the first part of a network of that config;
    `cross_logits(network, params, *inputs)` are its velocity and its mean logits of cross-attention, if it has any.
    """

    module: Callable[[Any], nn.Module]
    maps: Callable[..., tuple[Latents, Maps]]
    cost_group: Callable[[str], str]
    discriminator: Callable[[Any, DiscriminatorConfig], Discriminator]
    features: Callable[..., tuple[Latents, Features]] | None = None
    cross_logits: Callable[..., tuple[Latents, CrossLogits]] | None = None


FAMILIES: dict[type, Family] = {
    DitConfig: Family(
        Dit, velocity_and_maps, cost_group, make_discriminator, velocity_and_features, velocity_and_cross_logits
    ),
    UnetConfig: Family(Unet, unet_velocity_and_maps, unet_cost_groups.cost_group, make_unet_discriminator),
}


def family_of(config: NetworkConfig) -> Family:
    """The family of a network's config."""
    return FAMILIES[type(config)]


def build_network(config: NetworkConfig) -> Any:
    """The module of a network's config, without parameters."""
    return family_of(config).module(config)

"""The configs of the networks that predict a velocity; commands read them without JAX."""

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.unet.config import UnetConfig

NetworkConfig = DitConfig | UnetConfig


def as_transformer(config: NetworkConfig) -> DitConfig:
    """The config, for what can be done with a transformer alone. Raises UserError for that of another network."""
    if not isinstance(config, DitConfig):
        raise UserError(f"this takes a transformer, not a network of family '{config.family}': name another run")
    return config

"""The run that a VAE's second phase or smaller decoder starts from."""

from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.models.run import VAE, Run
from mobile_video_jax.stages.config import VaeTraining

# Sizes that the encoder follows from.
ENCODER = (
    "compression",
    "encoder_widths",
    "encoder_depths",
    "attention_blocks",
    "attention_window",
    "head_dim",
    "rope_theta",
)


def open_source(config: VaeTraining) -> Run | None:
    """The run that `init_from` names; None without one. Raises UserError where it is missing or has another encoder."""
    if not config.init_from:
        if config.freeze_encoder:
            raise UserError("a decoder is trained for an encoder: name its run with --config.init_from=RUN")
        return None
    source = Run.open(config.init_from, VAE)
    trained, model = source.config["model"], plain(config.model)
    for key in ENCODER:
        if trained.get(key) != model[key]:
            raise UserError(f"{source} has {key}={trained.get(key)}, this config {model[key]}: make them equal")
    return source

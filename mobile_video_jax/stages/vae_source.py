"""The run that a VAE's second phase or smaller decoder starts from."""

import dataclasses

from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.models.run import VAE, Run
from mobile_video_jax.models.vae import network_of
from mobile_video_jax.stages.config import VaeTraining
from mobile_video_jax.vae.config import OwnEncoder, VaeConfig

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


def with_published_encoder(config: VaeTraining) -> VaeTraining:
    """The config with the encoder of the published VAE in `init_from`, where that is one and a decoder is trained.

    Raises UserError where its latents are not those that the decoder reads.
    """
    if not (config.freeze_encoder and config.init_from):
        return config
    run = Run.open(config.init_from).vae_run()
    trained = network_of(run.config["model"]).config
    encoder = trained.encoder if isinstance(trained, VaeConfig) else trained
    if isinstance(encoder, OwnEncoder):
        return config
    if encoder.strides != config.model.strides:
        raise UserError(
            f"{run} has latents of {encoder.strides}, this decoder reads {config.model.strides}: use "
            f"configs/vae_decoder.py:SIZE_{encoder.strides}, or its variants of published VAEs"
        )
    model = dataclasses.replace(config.model, encoder=encoder, omni=False)
    return dataclasses.replace(config, model=model, init_from=run.name)


def open_source(config: VaeTraining) -> Run | None:
    """The run that `init_from` names; None without one. Raises UserError where it is missing or has another encoder."""
    if not config.init_from:
        if config.freeze_encoder:
            raise UserError("a decoder is trained for an encoder: name its run with --config.init_from=RUN")
        return None
    source = Run.open(config.init_from, VAE)
    if not isinstance(config.model.encoder, OwnEncoder):
        return source  # from which with_published_encoder took it
    trained, model = source.config["model"], plain(config.model)
    for key in ENCODER:
        if trained.get(key) != model[key]:
            raise UserError(f"{source} has {key}={trained.get(key)}, this config {model[key]}: make them equal")
    return source

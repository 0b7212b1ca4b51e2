"""Trainings of other configs, as parts of studies."""

import dataclasses
from typing import Any

from configs import distill, dit, recover, unet, vae
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.stages.config import DistillTraining, DitTraining, RecoverTraining, VaeTraining


def vae_training(variant: str, **changes: Any) -> VaeTraining:
    """The training of a VAE variant, with changes."""
    return dataclasses.replace(from_mapping(VaeTraining, vae.get_config(variant).to_dict()), **changes)


def dit_training(variant: str, **changes: Any) -> DitTraining:
    """The training of a transformer's variant, with changes."""
    return dataclasses.replace(from_mapping(DitTraining, dit.get_config(variant).to_dict()), **changes)


def unet_training(**changes: Any) -> DitTraining:
    """The training of the tiny U-Net, with changes."""
    return dataclasses.replace(from_mapping(DitTraining, unet.get_config("tiny").to_dict()), **changes)


def recover_training(variant: str, **changes: Any) -> RecoverTraining:
    """A recovery, with changes."""
    return dataclasses.replace(from_mapping(RecoverTraining, recover.get_config(variant).to_dict()), **changes)


def distill_training(variant: str) -> DistillTraining:
    """A distillation."""
    return from_mapping(DistillTraining, distill.get_config(variant).to_dict())

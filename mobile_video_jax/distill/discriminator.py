"""Discriminator of step distillation: a teacher's frozen first blocks, and a trained head on their features."""

import dataclasses
from typing import Any

from mobile_video_jax.core.arrays import LatentMask, Latents, TextMask, TextStates, Times
from mobile_video_jax.distill.discriminator_heads import ConvHead, DitHead, Grid, Logits
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.features import Backbone, backbone_params, first_blocks
from mobile_video_jax.dit.model import BackboneOutput
from mobile_video_jax.nn.module import apply


@dataclasses.dataclass(frozen=True)
class Discriminator:
    """Scores how real re-noised latents look beside their text (arXiv 2507.13343; SF-V, arXiv 2406.04324).

    The backbone's parameters are the teacher's and are passed in; only the head has parameters of its own.
    """

    backbone: Backbone
    head: DitHead | ConvHead

    def features(
        self,
        teacher: Any,
        x_t: Latents,
        t: Times,
        text: TextStates,
        text_mask: TextMask,
        latent_mask: LatentMask | None = None,
    ) -> BackboneOutput:
        """The backbone's features of noisy clips, at the parameters of the whole teacher."""
        params = backbone_params(self.backbone, teacher)
        features: BackboneOutput = apply(self.backbone, params, x_t, t, text, text_mask, latent_mask)
        return features

    def logits(self, params: Any, features: BackboneOutput, grid: Grid) -> Logits:
        """One logit per clip [b], positive for real ones, at the head's parameters."""
        logits: Logits = apply(self.head, params, features, grid)
        return logits


def make_discriminator(teacher: DitConfig, trunk_blocks: int, head: str, head_blocks: int) -> Discriminator:
    """Builds the discriminator on a teacher's first `trunk_blocks` blocks (0: half of them).

    Blocks of the head have the shape of the backbone's last. Raises UserError for more blocks than the teacher has.
    """
    backbone = first_blocks(teacher, trunk_blocks or (len(teacher.block_shapes) + 1) // 2)
    if head == "conv":
        return Discriminator(backbone, ConvHead(head_blocks, teacher.dtype))
    shapes = (backbone.config.block_shapes[-1],) * head_blocks
    return Discriminator(backbone, DitHead(shapes, teacher.head_dim, teacher.dtype))

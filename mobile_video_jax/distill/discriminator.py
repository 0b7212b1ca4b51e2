"""The discriminator: a teacher's frozen first blocks, and a trained head on their features."""

import dataclasses
from typing import Any

from mobile_video_jax.core.arrays import LatentMask, Latents, TextMask, TextStates, Times
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.distill.discriminator_heads import ConvHead, DitHead, Grid, Logits
from mobile_video_jax.dit.backbone import Backbone, backbone_params, first_blocks
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.model import BackboneOutput
from mobile_video_jax.nn.module import apply

HEADS = ("dit", "conv")


@dataclasses.dataclass(frozen=True)
class Discriminator:
    """How real a clip looks beside its text, from re-noised latents (arXiv 2507.13343; SF-V, arXiv 2406.04324).

    The trunk's parameters are those of the teacher, wherever they lie; only the head has its own.
    """

    trunk: Backbone
    head: DitHead | ConvHead

    def features(
        self,
        teacher: Any,
        x_t: Latents,
        t: Times,
        text: TextStates,
        text_mask: TextMask,
        mask: LatentMask | None = None,
    ) -> BackboneOutput:
        """The trunk's features of noisy clips, at the parameters of the whole teacher."""
        stream: BackboneOutput = apply(self.trunk, backbone_params(self.trunk, teacher), x_t, t, text, text_mask, mask)
        return stream

    def logits(self, params: Any, stream: BackboneOutput, grid: Grid) -> Logits:
        """One logit a clip, positive for real ones, from the trunk's features."""
        logits: Logits = apply(self.head, params, stream, grid)
        return logits


def make_discriminator(teacher: DitConfig, trunk_blocks: int, head: str, head_blocks: int) -> Discriminator:
    """The discriminator on a teacher's first `trunk_blocks` blocks (0: half of them).

    Blocks of the head have the shape of the trunk's last. Raises UserError for more blocks than the teacher has, an
    unknown head and one without blocks.
    """
    if head not in HEADS:
        raise UserError(f"head '{head}' is unknown: use {' or '.join(HEADS)}")
    if head_blocks < 1:
        raise UserError(f"head_blocks must be 1 or more, not {head_blocks}")
    trunk = first_blocks(teacher, trunk_blocks or (len(teacher.block_shapes) + 1) // 2)
    if head == "conv":
        return Discriminator(trunk, ConvHead(head_blocks, teacher.dtype))
    return Discriminator(
        trunk, DitHead((trunk.config.block_shapes[-1],) * head_blocks, teacher.head_dim, teacher.dtype)
    )

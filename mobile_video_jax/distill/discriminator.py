"""Discriminator of step distillation: a teacher's frozen first part, and trained heads on its features."""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from mobile_video_jax.core.arrays import LatentMask
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.distill.config import DiscriminatorConfig
from mobile_video_jax.distill.discriminator_heads import ConvHead, DitHead, Features, Grid, Heads, Logits, pooled_mask
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.features import Backbone, backbone_params, block_params, first_blocks, tapped_features
from mobile_video_jax.nn.module import apply

_traced_logits = jax.jit(apply, static_argnums=(0, 3))


@dataclasses.dataclass(frozen=True)
class Discriminator(abc.ABC):
    """Scores how real re-noised latents look beside their text (arXiv 2507.13343; SF-V, arXiv 2406.04324).

    The backbone's parameters are the teacher's and are passed in; only the heads have parameters of their own. There is
    one head at each of `taps`, numbers of the backbone's parts from 1.
    """

    taps: tuple[int, ...]
    heads: Heads

    @abc.abstractmethod
    def features(self, teacher: Any, *inputs: Any) -> Features:
        """The backbone's features of noisy clips, a network's `inputs`, at the parameters of the whole teacher."""

    def logits(self, params: Any, features: Features, grid: Grid) -> Logits:
        """Logits [b k], positive for real clips, at the heads' parameters: one for each tap and pooled group."""
        logits: Logits = _traced_logits(self.heads, params, features, grid)
        return logits

    def started(self, fresh: Any, teacher: Any) -> Any:
        """Fresh parameters of the heads, as far as they do not start from the teacher's."""
        return fresh

    def logit_mask(self, mask: LatentMask | None, grid: Grid) -> Bool[Array, "b k"] | None:
        """True for logits of more than padding; None where there is no padding."""
        if mask is None:
            return None
        return jnp.tile(pooled_mask(mask.reshape(mask.shape[0], -1), self.heads.groups(grid)), (1, len(self.taps)))


@dataclasses.dataclass(frozen=True)
class DitDiscriminator(Discriminator):
    """Reads a transformer's first blocks; taps are their numbers."""

    backbone: Backbone

    def features(self, teacher: Any, *inputs: Any) -> Features:
        return tapped_features(self.backbone, self.taps, backbone_params(self.backbone, teacher), *inputs)

    def started(self, fresh: Any, teacher: Any) -> Any:
        """Fresh parameters of the heads, whose first blocks are now those of the teacher after their taps."""
        heads = {}
        for i, tap in enumerate(self.taps):
            block = block_params(teacher, tap)
            first = jax.tree.map(lambda new, old: old.astype(new.dtype), fresh[f"tap_{i}"]["block_0"], block)
            heads[f"tap_{i}"] = fresh[f"tap_{i}"] | {"block_0": first}
        return fresh | heads


def make_discriminator(teacher: DitConfig, config: DiscriminatorConfig) -> DitDiscriminator:
    """Builds the discriminator on a teacher's first blocks, up to the last tap.

    A head's blocks have the shape of the block that it reads. Raises UserError for blocks that the teacher has not.
    """
    depth = len(teacher.block_shapes)
    taps = config.taps or (config.trunk_blocks or (depth + 1) // 2,)
    if config.taps and max(taps) > depth:
        raise UserError(f"a transformer of {depth} blocks has no block {max(taps)}: use taps from 1 to {depth}")
    if config.head_start == "teacher" and (config.head != "dit" or max(taps) == depth):
        raise UserError("head_start=teacher needs head=dit, and a block of the teacher after each that a head reads")
    backbone = first_blocks(teacher, max(taps))
    heads = tuple(_head(teacher, config, tap) for tap in taps)
    return DitDiscriminator(taps, Heads(heads, config.pooling), backbone)


def _head(teacher: DitConfig, config: DiscriminatorConfig, tap: int) -> DitHead | ConvHead:
    if config.head == "conv":
        return ConvHead(config.head_blocks, teacher.dtype)
    like = tap if config.head_start == "teacher" else tap - 1
    shape = dataclasses.replace(teacher.block_shapes[like], skip=False)
    return DitHead((shape,) * config.head_blocks, teacher.head_dim, teacher.dtype, teacher.norms)

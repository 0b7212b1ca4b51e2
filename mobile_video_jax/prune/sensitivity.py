"""Sensitivity of the units: the rise of the distillation loss if one is removed, exactly or to first order."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int
from scipy.stats import spearmanr

from mobile_video_jax.core.arrays import LatentMask, Rng
from mobile_video_jax.distill.config import KdWeights
from mobile_video_jax.distill.kd import EPS, Outputs, kd_residual
from mobile_video_jax.dit.features import velocity_and_errors, velocity_and_features
from mobile_video_jax.dit.masks import ALL, Masks
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.parallel.distributed import to_hosts
from mobile_video_jax.prune.calibration import Calibration
from mobile_video_jax.prune.memo import keep_key
from mobile_video_jax.prune.units import Unit, Units

Scores = Float64[np.ndarray, "u"]


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Scores the units of an unpruned transformer, its own teacher, on calibration batches of one shape.

    One forward pass runs every clip with each of `rows` masked models, so that one program serves a pass over all
    units. It is sharded over the devices as the batches are.
    """

    dit: Dit
    params: Any
    units: Units
    batches: Sequence[Calibration]
    weights: KdWeights = KdWeights()
    rows: int = 8  # masked models in one forward pass
    progress: Callable[[int, int], object] = lambda done, total: None  # called before each forward pass
    memo: MutableMapping[str, float] = dataclasses.field(default_factory=dict)  # losses by keep_key

    def losses(self, keeps: Sequence[Masks]) -> Scores:
        """The distillation loss of each masked model, the mean over all batches."""
        keys = [keep_key(keep) for keep in keeps]
        new = {key: keep for key, keep in zip(keys, keeps, strict=True) if key not in self.memo}
        for start in range(0, len(new), self.rows):
            self.progress(start, len(new))
            names, chunk = list(new)[start : start + self.rows], list(new.values())[start : start + self.rows]
            # The last chunk is padded: one shape, one program.
            padded = [*chunk, *[chunk[0]] * (self.rows - len(chunk))]
            stacked = Masks(*(np.stack(mask) for mask in zip(*padded, strict=True)))
            losses = [to_hosts(_losses(self.dit, self.weights, self.params, batch, stacked)) for batch in self.batches]
            means = np.stack(losses).mean(axis=0, dtype=np.float64)
            self.memo.update(zip(names, means.tolist(), strict=False))  # without those of the padding
        return np.array([self.memo[key] for key in keys])

    def exact(self, keep: Masks, units: Iterable[Unit]) -> Scores:
        """s(u) = L_KD(M without u) - L_KD(M) for each unit u, where M is the masked model."""
        losses = self.losses([keep, *(self.units.without(keep, [unit]) for unit in units)])
        return np.asarray(losses[1:] - losses[0])

    def taylor(self, keep: Masks, units: Iterable[Unit], *, probes: int = 1, seed: int = 0) -> Scores:
        """s(u) with the network's outputs to first order in the masks, from one backward pass and one for each probe.

        With r the scaled differences of outputs whose squares are the loss (kd_residual) and J_u the derivative of r by
        the mask of u, removing u changes r by -J_u and so the loss by -2 r J_u + |J_u|^2: the Gauss-Newton form. The
        first term is Molchanov et al.'s gradient times mask (arXiv 1906.10771); alone it ranks nothing, as it is zero
        for the unpruned model, where the loss is least. The second is the diagonal of Fisher pruning (arXiv
        1801.05787), estimated as the mean of (e J_u)^2 over `probes` vectors e of random signs for each clip
        (Hutchinson, Communications in Statistics 18(3), 1989).
        """
        settings = self.dit, self.weights, probes, self.units.group, self.rows
        batch_scores = [
            jax.tree.map(to_hosts, _taylor(*settings, self.params, batch, keep, seed + i))
            for i, batch in enumerate(self.batches)
        ]
        mean = Masks(*(np.mean(parts, axis=0, dtype=np.float64) for parts in zip(*batch_scores, strict=True)))
        return np.array(
            [
                getattr(mean, kind)[block] if kind == "block" else getattr(mean, kind)[block, number]
                for kind, block, number in units
            ]
        )


def _outputs(dit: Dit, params: Any, batch: Calibration, keep: Masks) -> Outputs:
    return velocity_and_features(dit, params, *batch, keep)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _losses(dit: Dit, weights: KdWeights, params: Any, batch: Calibration, keeps: Masks) -> Float[Array, "u"]:
    """The mean loss over clips of each of u models.

    The teacher, without masks, runs beside them as model 0, so that features are compared block by block and one
    block's are held at a time. Rows of one clip are neighbours, so that clips stay sharded.
    """
    clips, models = batch.t.shape[0], 1 + keeps.block.shape[0]
    rows = jax.tree.map(lambda x: jnp.repeat(x, models, axis=0), batch)

    def each_clip(mask: Float[Array, "u l *n"]) -> Float[Array, "l bu *n"]:
        with_teacher = jnp.concatenate([jnp.ones_like(mask[:1]), mask])
        return jnp.tile(jnp.moveaxis(with_teacher, 0, 1), (1, clips, *(1,) * (mask.ndim - 2)))

    def error(x: Float[Array, "bu *n"], mask: LatentMask | None = rows.mask) -> Float[Array, "bu"]:
        """|x - teacher|^2 / |teacher|^2 of each row, over values that are no padding."""
        x = x.reshape(clips, models, -1, x.shape[-1]).astype(jnp.float32)
        if mask is not None:
            x = jnp.where(mask.reshape(clips, models, -1, 1), x, 0)
        rise, energy = jnp.sum((x - x[:, :1]) ** 2, axis=(2, 3)), jnp.sum(x[:, :1] ** 2, axis=(2, 3))
        return (rise / (energy + EPS)).reshape(-1)

    keep = jax.tree.map(each_clip, keeps)
    velocity, errors = velocity_and_errors(dit, params, error, *rows, keep)
    features = jnp.sum(keep.block * errors, axis=0) / jnp.sum(keep.block, axis=0)
    losses = weights.velocity * error(velocity) + weights.features * features
    return jnp.mean(losses.reshape(clips, models), axis=0)[1:]


def lower_losses(dit: Dit, weights: KdWeights, params: Any, batch: Calibration, keeps: Masks) -> jax.stages.Lowered:
    """The program of `Scorer.losses`, ready to compile: arguments are shapes with their shardings."""
    return _losses.lower(dit, weights, params, batch, keeps)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _taylor(
    dit: Dit,
    weights: KdWeights,
    probes: int,
    group: int,
    rows: int,
    params: Any,
    batch: Calibration,
    keep: Masks,
    seed: Int[Array, ""],
) -> Masks:
    """-2 r J_u + |J_u|^2 of every unit, the mean over clips, at the units' positions in the masks.

    The batch is computed in up to `rows` parts, one after the other, each with clips of every device.
    """
    count = math.gcd(rows, batch.t.shape[0])
    parts = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1), batch)
    keys = jax.random.split(jax.random.key(seed), count)
    scores = jax.lax.map(lambda part: _taylor_of(dit, weights, probes, group, params, keep, *part), (parts, keys))
    mean: Masks = jax.tree.map(lambda x: jnp.mean(x, axis=0), scores)
    return mean


def _taylor_of(
    dit: Dit,
    weights: KdWeights,
    probes: int,
    group: int,
    params: Any,
    keep: Masks,
    batch: Calibration,
    key: Rng,
) -> Masks:
    """The scores of a part of a batch."""
    teacher = _outputs(dit, params, batch, ALL)

    def residual(units: Masks) -> Outputs:
        masks = units._replace(ffn=jnp.repeat(units.ffn, group, axis=-1))
        return kd_residual(_outputs(dit, params, batch, masks), teacher, keep.block, weights, batch.mask)

    # A mask for each clip gives the derivatives clip by clip.
    clips = batch.t.shape[0]
    grouped = keep._replace(ffn=keep.ffn[:, ::group])
    each = jax.tree.map(lambda mask: jnp.repeat(mask[:, None], clips, axis=1), grouped)
    r, pull = jax.vjp(residual, each)

    def squared(key: Rng) -> Masks:
        keys = jax.random.split(key, 2)
        signs = tuple(jax.random.rademacher(k, x.shape, x.dtype) for k, x in zip(keys, r, strict=True))
        return Masks(*(jnp.mean(gradient**2, axis=1) for gradient in pull(signs)[0]))

    slopes = [jnp.mean(gradient, axis=1) for gradient in pull(r)[0]]
    curvatures = [jnp.mean(x, axis=0) for x in jax.lax.map(squared, jax.random.split(key, probes))]
    return Masks(*(curvature - 2 * slope for slope, curvature in zip(slopes, curvatures, strict=True)))


def rank_correlation(units: Sequence[Unit], first: Scores, second: Scores) -> dict[str, float]:
    """Spearman's rank correlation of two scores of the same units, for each kind whose scores vary."""
    kinds = np.array([unit.kind for unit in units])
    pairs = {kind: (first[kinds == kind], second[kinds == kind]) for kind in dict.fromkeys(kinds.tolist())}
    return {kind: float(spearmanr(*pair).statistic) for kind, pair in pairs.items() if all(map(np.ptp, pair))}

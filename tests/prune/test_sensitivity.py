"""The distillation loss of masked models, exact and to first order."""

import dataclasses
import logging
import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.diffusion.timesteps import stratified_times
from mobile_video_jax.distill.config import KdWeights
from mobile_video_jax.dit.features import velocity_and_features
from mobile_video_jax.dit.masks import ALL, Masks
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.stacking import stack_blocks
from mobile_video_jax.prune.calibration import calibration
from mobile_video_jax.prune.sensitivity import Scorer, lower_losses, rank_correlation
from mobile_video_jax.prune.units import LEVELS, Unit, Units
from tests.nets import normal
from tests.prune.tiny import ACROSS_HEADS, CONFIG, DIT, UNITS, clips, params

KINDS = [kind for kinds in LEVELS.values() for kind in kinds]
EVERY = [unit for kind in KINDS for unit in UNITS.kept(UNITS.all(), kind)]
PRUNED = UNITS.without(UNITS.all(), [Unit("block", 1), Unit("heads", 0, 2)])


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(DIT, params(), UNITS, (clips(0), clips(2)), KdWeights(1.0, 0.5), rows=4)


def test_a_whole_pass_is_at_most_two_programs_and_repeats_to_the_bit(scorer, caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        first = scorer.exact(UNITS.all(), EVERY), scorer.taylor(UNITS.all(), EVERY, probes=64)
        scorer.exact(PRUNED, UNITS.kept(PRUNED, "heads"))
    assert 1 <= sum(record.message.startswith("Compiling") for record in caplog.records) <= 2
    again = scorer.exact(UNITS.all(), EVERY), scorer.taylor(UNITS.all(), EVERY, probes=64)
    np.testing.assert_array_equal(first, again)
    assert (first[0] > 0).all()


def reference(scorer: Scorer, keep, forward) -> float:
    """The formula with a loop over clips and blocks, on the values that are no padding."""
    losses = []
    for batch in scorer.batches:
        (velocity, features), (true_velocity, true_features) = forward(batch, keep), forward(batch, ALL)
        for i, mask in enumerate(np.asarray(batch.mask)):
            error = lambda x, y, places: np.sum((x - y)[places] ** 2) / np.sum(y[places] ** 2)
            places = [error(features[b][i], true_features[b][i], mask.ravel()) for b in np.flatnonzero(keep.block)]
            losses.append(error(velocity[i], true_velocity[i], mask) + 0.5 * np.mean(places))
    return float(np.mean(losses))


def test_exact_rises_are_those_of_the_formula(scorer):
    program = jax.jit(lambda batch, keep: velocity_and_features(DIT, scorer.params, *batch, keep))
    forward = lambda batch, keep: jax.device_get(program(batch, keep))
    units = [Unit("block", 2), Unit("heads", 0, 1), Unit("cross_heads", 2, 0), Unit("ffn", 0, 3)]
    base = reference(scorer, PRUNED, forward)
    expected = [reference(scorer, UNITS.without(PRUNED, [unit]), forward) - base for unit in units]
    np.testing.assert_allclose(scorer.exact(PRUNED, units), expected, rtol=1e-4)


def test_scanned_blocks_give_the_same_rises(scorer):
    dit = Dit(dataclasses.replace(CONFIG, scan=True))
    scanned = dataclasses.replace(scorer, dit=dit, params=stack_blocks(scorer.params))
    np.testing.assert_allclose(scanned.exact(PRUNED, EVERY[:7]), scorer.exact(PRUNED, EVERY[:7]), rtol=1e-4, atol=1e-6)


def test_memory_does_not_grow_with_the_depth():
    """Of scanned blocks: nine more take less than the features of one of them."""
    clean = {"latents": normal(0, 2, 4, 4, 4, 4), "text": normal(1, 2, 3, 5), "text_mask": np.ones((2, 3), bool)}
    batch, models = calibration(clean, jax.random.key(0), times=2, shift=1.0), 4

    def temporary_bytes(depth: int) -> int:
        config = dataclasses.replace(CONFIG, depth=depth, scan=True)
        shapes = jax.eval_shape(lambda: nn.unbox(Dit(config).init(jax.random.key(0), *batch)["params"]))
        keeps = Masks(*(np.stack([mask] * models) for mask in Units(config, 4).all()))
        program = lower_losses(Dit(config), KdWeights(), shapes, batch, keeps)
        return program.compile().memory_analysis().temp_size_in_bytes

    rows, tokens, floats = 4 * (models + 1), 64, 4
    assert temporary_bytes(12) - temporary_bytes(3) < rows * tokens * CONFIG.width * floats


def assert_first_order_is_of_slight_removals(scorer: Scorer, units: list[Unit]):
    """L(1 - e u) / e^2 goes to |J_u|^2; 2 x 4 rows of 64 probes leave 6 % of noise."""
    everything = scorer.units.all()
    slight = []
    for unit in units:
        fewer = scorer.units.without(everything, [unit])
        slight.append(jax.tree.map(lambda full, less: full - np.float32(0.02) * (full - less), everything, fewer))
    measured = scorer.losses(slight) / 0.02**2
    np.testing.assert_allclose(scorer.taylor(everything, units, probes=64), measured, rtol=0.3)


def test_first_order_rises_are_the_losses_of_a_slight_removal(scorer):
    assert_first_order_is_of_slight_removals(scorer, [unit for unit in EVERY if unit.kind != "block"])


def test_first_order_rises_hold_where_a_head_has_a_share_in_the_norm_of_the_others():
    config = dataclasses.replace(ACROSS_HEADS, depth=1)
    across = Scorer(Dit(config), params(config), Units(config, 16), (clips(0), clips(2)), rows=4)
    heads = [Unit(kind, 0, i) for kind in ("heads", "cross_heads") for i in range(3)]
    assert_first_order_is_of_slight_removals(across, heads)


@pytest.mark.parametrize("keep", [UNITS.all(), PRUNED])
def test_first_order_ranks_as_exact_does(scorer, keep):
    units = [unit for kind in KINDS[1:] for unit in UNITS.kept(keep, kind)]
    correlations = rank_correlation(units, scorer.exact(keep, units), scorer.taylor(keep, units, probes=64))
    assert set(correlations) == set(KINDS[1:])
    assert min(correlations.values()) > 0.7


def test_units_whose_scores_do_not_vary_have_no_ranks():
    units = [Unit(kind, 0, i) for kind in ("heads", "ffn") for i in range(2)]
    assert rank_correlation(units, np.array([1.0, 1.0, 1.0, 2.0]), np.arange(4.0)) == {"ffn": pytest.approx(1.0)}


SHARDED = """
import dataclasses, jax, numpy as np
from mobile_video_jax.parallel.mesh import batch_sharding, make_mesh, replicated
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.distill.config import KdWeights
from mobile_video_jax.prune.sensitivity import Scorer
from tests.prune.test_sensitivity import DIT, EVERY, PRUNED, UNITS, clips, params

one = Scorer(DIT, params(), UNITS, (clips(0),), KdWeights(), rows=4)
mesh = make_mesh(MeshConfig(data=2, fsdp=2))
cut = jax.device_put(one.batches[0], batch_sharding(mesh))
four = dataclasses.replace(one, params=jax.device_put(one.params, replicated(mesh)), batches=(cut,))
for score in (lambda s: s.exact(PRUNED, EVERY), lambda s: s.taylor(PRUNED, EVERY, probes=64)):
    np.testing.assert_allclose(score(four), score(one), rtol=1e-4, atol=1e-5)
"""


@pytest.mark.slow
def test_clips_cut_over_devices_give_the_same_rises():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", SHARDED], env=environment, check=True)


def test_every_clip_is_seen_in_every_stratum_of_the_times():
    batch = {"latents": normal(0, 3, 1, 2, 2, 4), "text": normal(1, 3, 2, 5), "text_mask": jnp.ones((3, 2), bool)}
    stratified = calibration(batch, jax.random.key(0), times=4, shift=2.0)
    none = calibration(batch, jax.random.key(0), times=4, shift=2.0, caption_dropout=1.0)
    assert not np.any(none.text) and np.array_equal(none.x_t, stratified.x_t)
    np.testing.assert_allclose(np.sort(stratified.t), stratified_times(12, shift=2.0), rtol=1e-6)
    strata = np.argsort(np.argsort(stratified.t)).reshape(3, 4) // 3
    np.testing.assert_array_equal(strata, np.tile(np.arange(4), (3, 1)))
    np.testing.assert_array_equal(stratified.text[4:8], np.repeat(batch["text"][1:2], 4, axis=0))
    near_data = stratified.x_t[np.argmin(stratified.t)] - batch["latents"][0]
    assert np.abs(near_data).mean() < np.abs(stratified.x_t[3] - batch["latents"][0]).mean()

"""SnapGen++'s ladder: what each step has, and that small networks keep the published proportions."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from configs.dit import LADDER, RUNG
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.ladder import RUNGS, rung
from mobile_video_jax.dit.model import Dit

SMALL = DitConfig(width=24, depth=8, heads=4, head_dim=6, kv_heads=1, ffn=24, attention_cell=(1, 2, 2))


def stages(model: DitConfig) -> list[tuple[str, int, int]]:
    """Kind, resolution and number of the blocks of each stage in turn."""
    runs: list[tuple[str, int, int]] = []
    for shape in model.block_shapes:
        if runs and runs[-1][:2] == shape.place:
            runs[-1] = (*shape.place, runs[-1][2] + 1)
        else:
            runs.append((*shape.place, 1))
    return runs


def test_the_ladder_has_the_published_stages_heads_and_skips():
    assert stages(LADDER["ladder1"]) == [("full", 1, 6), ("full", 2, 14), ("full", 1, 8)]
    assert stages(LADDER["ladder2"]) == [("assa", 1, 6), ("full", 2, 14), ("assa", 1, 8)]
    last = LADDER["ladder3"]
    assert stages(last) == [("assa", 1, 8), ("full", 2, 10), ("assa", 1, 10)]
    assert last.kv_heads == 8 and last.skips == ((8, 17), (9, 16), (10, 15), (11, 14), (12, 13))
    assert [shape.ffn for shape in last.block_shapes] == [4608] * 8 + [3456] * 10 + [4608] * 10


@pytest.mark.parametrize("name", RUNGS)
def test_every_step_of_a_small_network_keeps_its_depth_and_fits_its_clips(name):
    model = rung(SMALL, name)
    assert len(model.block_shapes) == SMALL.depth
    inputs = (jnp.ones((1, 2, 4, 4, 3)), jnp.ones(1), jnp.ones((1, 2, 8)), jnp.ones((1, 2), bool))
    made, _ = jax.eval_shape(lambda: Dit(model).init_with_output(jax.random.key(0), *inputs))
    assert made.shape == (1, 2, 4, 4, 3)


@pytest.mark.parametrize(
    "changes",
    [{"depth": 3}, {"blocks": ((4, 4, 24),) * 8}, {"layout": (("full", 1),) * 8}],
    ids=lambda each: next(iter(each)),
)
def test_networks_that_are_no_plain_one_are_refused(changes):
    with pytest.raises(UserError, match="ladder starts from"):
        rung(dataclasses.replace(RUNG, scan=False, **changes), "stages")

"""bfloat16 computing trains like float32."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from tests import tiny

WINDOW = 20
# At the rate of the other tests' runs any rounding soon leads elsewhere.
OPTIMIZER = dataclasses.replace(tiny.OPTIMIZER, learning_rate=5e-4)


def curve(run: Path, data: Path, dtype: str, seed: int) -> np.ndarray:
    """The training loss, averaged over windows of steps."""
    model = dataclasses.replace(tiny.DIT, width=96, heads=3, ffn=192, dtype=dtype)
    changes = {"model": model, "optimizer": OPTIMIZER, "seed": seed, "steps": 200, "eval_every": 200}
    train(DitStage(tiny.dit_config(data, batch_size=16, checkpoint_every=200, **changes)), run)
    return np.reshape([line["loss"] for line in read_metrics(run)], (-1, WINDOW)).mean(axis=1)


@pytest.mark.slow
def test_loss_curves_in_bfloat16_and_float32_agree_over_200_steps(tmp_path, capsys):
    """With the same seed they differ by less than two seeds do, in every window, and both learn."""
    data = tiny.latents(tmp_path / "data", train=256, validation=16)
    curves = {
        (dtype, seed): curve(tmp_path / f"{dtype}{seed}", data, dtype, seed)
        for dtype in ("float32", "bfloat16")
        for seed in (0, 1)
    }
    between_types = np.abs([curves["float32", seed] - curves["bfloat16", seed] for seed in (0, 1)])
    between_seeds = np.abs(curves["float32", 0] - curves["float32", 1])
    with capsys.disabled():
        print(f"\nlosses {curves['float32', 0][[0, -1]]}, between types {between_types}, seeds {between_seeds}")
    assert between_types.mean() < 0.2 * between_seeds.mean()
    assert between_types.max() < 0.02 * curves["float32", 0][0]
    assert all(losses[-1] < 0.8 * losses[0] for losses in curves.values())

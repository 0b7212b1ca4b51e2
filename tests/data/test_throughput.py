"""Whether the loader keeps ahead of the demo's training step."""

import dataclasses
import time
from pathlib import Path

import jax
import pytest

from configs import demo
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.demo.config import DemoConfig
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh, put_batch
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.train.optimizer import make_optimizer
from mobile_video_jax.train.state import create_state, state_shardings
from mobile_video_jax.train.step import make_step


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> VaeStage:
    root: Path = tmp_path_factory.mktemp("clips")
    config = from_mapping(DemoConfig, demo.get_config().to_dict())
    clip, sizes = ClipShape.parse(config.vae.clip), {"train": 200, "validation": 8, "test": 8}
    prepare("moving_shapes", root / "shapes", world=config.world, clip=clip, sizes=sizes)
    prepare("sample_clips", root / "real")
    return VaeStage(dataclasses.replace(config.vae, data=str(root / "shapes"), mix_data=str(root / "real")))


def seconds_of(function, count: int) -> float:
    started = time.monotonic()
    for _ in range(count):
        function()
    return (time.monotonic() - started) / count


@pytest.mark.slow
def test_the_loader_feeds_three_times_what_the_demo_trains_on(stage, capsys):
    mesh = make_mesh(MeshConfig())
    batches = iter(stage.train_batches(mesh))
    optimizer = make_optimizer(stage.config.optimizer, stage.config.steps)
    _, shardings = state_shardings(stage, optimizer, mesh)
    step = make_step(stage, optimizer, mesh, shardings)
    batch = next(batches)
    batch.pop("record")
    holder = [create_state(stage, optimizer, jax.random.key(0), shardings, {})]

    def train() -> None:
        holder[0], metrics = step(holder[0], put_batch(batch, mesh))
        jax.block_until_ready(metrics)

    train()
    stepping, loading = seconds_of(train, 20), seconds_of(lambda: next(batches), 100)
    with capsys.disabled():
        print(f"\na step takes {stepping:.3f} s, a batch {loading:.3f} s: {stepping / loading:.1f}x")
    assert loading * 3 < stepping

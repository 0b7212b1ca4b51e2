"""Held-out metrics are means in which every record counts once, whatever fills up the last batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.data.prepare.prepare import prepare
from mobile_video_jax.models.run import Run
from mobile_video_jax.nn.module import apply
from mobile_video_jax.parallel.mesh import MeshConfig, make_mesh
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.vae.pixels import to_signed
from tests import tiny

SIZE, BATCH = 10, 4
EVALUATED = {"steps": 1, "eval_every": 1, "eval_batches": 3, "checkpoint_every": 1, "batch_size": BATCH}


def batches(stage) -> list[dict]:
    return list(stage.eval_batches(make_mesh(MeshConfig())))


def test_of_a_transformer(tmp_path):
    data = tiny.latents(tmp_path / "data", train=8, validation=SIZE)
    stage = DitStage(tiny.dit_config(data, **EVALUATED))
    train(stage, tmp_path / "run")
    params = Run.open(tmp_path / "run").sharded_params(make_mesh(MeshConfig()))
    evaluate, losses = jax.jit(stage.evaluate_batch), {}
    for i, batch in enumerate(batches(stage)):
        for row, record in enumerate(batch.pop("record").tolist()):
            alone = batch | {"weight": np.eye(BATCH, dtype=np.float32)[row]}
            losses.setdefault(record, float(evaluate(params, alone, jax.random.key(i))["loss"]))
    assert len(losses) == SIZE
    assert read_metrics(tmp_path / "run")[-1]["eval_loss"] == pytest.approx(np.mean(list(losses.values())), rel=1e-5)


@pytest.mark.slow
def test_of_a_vae(tmp_path):
    sizes = {"train": 8, "validation": SIZE, "test": 0}
    prepare("moving_shapes", tmp_path / "data", clip=ClipShape.parse(tiny.CLIP), sizes=sizes)
    stage = VaeStage(tiny.vae_config(tmp_path / "data", stats_batches=1, **EVALUATED))
    train(stage, tmp_path / "run")
    bundle, squares, absolutes = Run.open(tmp_path / "run").vae(), {}, {}
    for batch in batches(stage):
        video = to_signed(jnp.asarray(batch["video"]))
        decoded = apply(
            bundle.vae, bundle.params, apply(bundle.vae, bundle.params, video, method="encode").mean, method="decode"
        )
        for record, clip, output in zip(batch["record"].tolist(), np.asarray(video), np.asarray(decoded), strict=True):
            squares[record] = np.mean((clip - np.clip(output, -1, 1)) ** 2)
            absolutes[record] = np.abs(clip - output).mean()
    assert len(squares) == SIZE
    line = read_metrics(tmp_path / "run")[-1]
    assert line["eval_psnr"] == pytest.approx(np.mean(10 * np.log10(4 / np.array(list(squares.values())))), rel=1e-4)
    assert line["eval_l1"] == pytest.approx(np.mean(list(absolutes.values())), rel=1e-4)

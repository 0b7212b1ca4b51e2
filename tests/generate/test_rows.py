"""One clip over several devices, cut by rows: the result of one device."""

import json
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.evaluate.reconstruction import coder_over_devices
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.vae import on_mesh
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh, put_batch, replicated
from mobile_video_jax.stages.vae import VaeStage
from tests import tiny
from tests.commands import call


def print_differences(run: Path) -> None:
    """What meshes of eight devices make of a clip beside what one device does."""
    bundle = Run.open(run).vae()
    video = np.random.default_rng(0).integers(0, 256, (2, 9, 64, 32, 3), np.uint8)
    results = []
    for sizes in ((1, 1, 1), (2, 1, 4), (1, 1, 8)):
        devices = jax.devices()[: int(np.prod(sizes))]
        encode, decode = on_mesh(bundle, make_mesh(MeshConfig(*sizes), devices))
        latents = encode(video)
        results.append((latents, decode(latents).astype(int)))
    errors = {"latents": [], "pixels": []}
    for latents, pixels in results[1:]:
        errors["latents"].append(float(np.abs(latents - results[0][0]).max()))
        errors["pixels"].append(int(np.abs(pixels - results[0][1]).max()))
    for rows in (3, 16):
        try:
            coder_over_devices(bundle, ClipShape(9, 128, 32), rows)
        except UserError as error:
            errors.setdefault("refused", []).append(str(error))
    try:
        VaeStage(tiny.vae_config(run)).train_batches(make_mesh(MeshConfig(1, 1, 8)))
    except UserError as error:
        errors["refused"].append(str(error))
    print(json.dumps(errors))


def print_training(folder: Path) -> None:
    """A VAE's loss and gradients on four devices that share each clip's rows, beside those on one device."""
    stage = VaeStage(tiny.vae_config(folder, batch_size=2))
    params = nn.unbox(stage.init(jax.random.key(0)))
    video = np.random.default_rng(0).integers(0, 256, (2, 9, 32, 32, 3), np.uint8)
    results, exchanged = [], []
    for sizes in ((1, 1, 1), (1, 1, 4)):
        mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
        arguments = (jax.device_put(params, replicated(mesh)), put_batch({"video": video}, mesh), jax.random.key(1))
        step = jax.jit(jax.value_and_grad(lambda *arguments: stage.loss(*arguments)[0])).lower(*arguments).compile()
        results.append(np.asarray(ravel_pytree(step(*arguments))[0]))
        exchanged.append("collective-permute" in step.as_text())
    error = float(np.linalg.norm(results[1] - results[0]) / np.linalg.norm(results[0]))
    print(json.dumps({"error": error, "exchanged": exchanged}))


@pytest.mark.slow
def test_clips_cut_by_rows_train_as_on_one_device(tmp_path):
    """Fast tests hold the encoder and the decoder to it, without a gradient."""
    done = call(print_training, tmp_path, devices=4)
    assert done.status == 0, done.err
    found = json.loads(done.out.splitlines()[-1])
    assert found["error"] < 1e-5 and found["exchanged"] == [False, True]


def test_a_clip_cut_by_rows_codes_as_on_one_device(tmp_path):
    done = call(print_differences, tiny.vae_run(tmp_path / "vae"), devices=8)
    assert done.status == 0, done.err
    errors = json.loads(done.out.splitlines()[-1])
    assert max(errors["latents"]) < 1e-5 and max(errors["pixels"]) <= 1
    assert "cannot share the 16 rows" in errors["refused"][0] and "there are 8 devices" in errors["refused"][1]
    assert "8 devices cannot share the 4 rows" in errors["refused"][2]

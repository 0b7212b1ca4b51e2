"""LTX-Video's decoder in diffusers, for comparison of speed."""

import os
from typing import Any

import numpy as np
from jaxtyping import Float

from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig

PACKAGES = "torch==2.13.0 diffusers==0.42.1"
MISSING = f"the PyTorch peer is missing: pip install {PACKAGES}"


class LtxDecoder:
    """LTX-Video's decoder (arXiv 2501.00103) in diffusers, with random weights: t8_s32_c128, 239 M parameters.

    Maps latents on the host to a tensor [b, 3, t, h, w] on the device, and waits for it. `changes` are arguments of
    AutoencoderKLLTXVideo, such as fewer channels. Raises UserError where torch, diffusers or the GPU is missing.
    """

    name = "LTX-Video's decoder (diffusers)"

    def __init__(self, dtype: str = "float32", device: str = "cpu", **changes: Any):
        self._torch, model = _model("cpu", changes)
        if device == "cuda" and not self._torch.cuda.is_available():
            raise UserError("PyTorch finds no GPU here: install its CUDA build, or use --suite=cpu")
        self._torch.set_num_threads(os.cpu_count() or 1)
        # Keeps no reference to the encoder, so that its memory is freed.
        self._decoder = model.decoder.to(device, getattr(self._torch, dtype))
        self._device, self._dtype = device, getattr(self._torch, dtype)
        self.parameters = sum(weights.numel() for weights in self._decoder.parameters())
        self.flops_per_512_frame = _flops_per_frame(changes, ClipShape(49, 512, 512))

    def __call__(self, latents: Float[np.ndarray, "b lt lh lw c"]) -> Any:
        with self._torch.inference_mode():
            video = self._decoder(self._torch.from_numpy(latents).to(self._device, self._dtype).movedim(-1, 1))
        if self._device == "cuda":
            self._torch.cuda.synchronize()
        return video


def dit_peer(config: DitConfig, latent_shape: tuple[int, int, int, int], text_width: int, device: str) -> Any:
    """The transformer's steps in PyTorch, a DitPeer. Raises UserError where torch or the GPU is missing."""
    try:
        from export.peer.dit import DitPeer
    except ImportError as error:
        raise UserError(MISSING) from error
    return DitPeer(config, latent_shape, text_width, device)


def _model(device: str, changes: dict[str, Any]) -> tuple[Any, Any]:
    """The module torch and the autoencoder."""
    try:
        import torch
        from diffusers import AutoencoderKLLTXVideo
    except ImportError as error:
        raise UserError(MISSING) from error
    with torch.device(device):
        model: Any = AutoencoderKLLTXVideo(**changes)
    return torch, model.eval()


def _flops_per_frame(changes: dict[str, Any], clip: ClipShape) -> int:
    """FLOPs of decoding a clip divided by its frames, a multiply-add as 2, counted from shapes alone."""
    torch, model = _model("meta", changes)
    from torch.utils.flop_counter import FlopCounterMode

    channels = model.config.latent_channels
    strides = Compression(model.temporal_compression_ratio, model.spatial_compression_ratio, channels)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.decoder(torch.empty(1, channels, *clip.latent(strides), device="meta"))
    flops: int = counter.get_total_flops()
    return flops // clip.frames

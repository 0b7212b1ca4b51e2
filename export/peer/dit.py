"""Training and sampling steps of the transformer in PyTorch, for comparison of speed."""

import copy
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from export.pytorch.dit import Dit
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.train.config import OptimizerConfig

Batch = Mapping[str, np.ndarray]
Run = Callable[[], Any]


class DitPeer:
    """Steps of export.pytorch.dit.Dit with random weights; `train` and `sample` return them "eager" and "compiled".

    The compute dtype is the config's. Training keeps float32 weights and casts them in each step: on 2 cores of an AMD
    EPYC that took 0.79 s, autocast 0.88 s, and both 0.72 s compiled. Sampling casts the weights once. Each step waits
    for its result. Raises UserError where the GPU is missing.
    """

    name = "PyTorch"

    def __init__(
        self, config: DitConfig, latent_shape: tuple[int, int, int, int], text_width: int, device: str = "cpu"
    ):
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("PyTorch finds no GPU here: install its CUDA build, or use --suite=cpu")
        torch.set_num_threads(os.cpu_count() or 1)
        # Where there is no C++ compiler, "compiled" runs eagerly.
        torch._dynamo.config.suppress_errors = True
        self._device, self._dtype = device, getattr(torch, config.dtype)
        with torch.device(device):
            self._dit = Dit(config, latent_shape, text_width)
        for weights in self._dit.parameters():
            nn.init.normal_(weights, std=0.02)

    def train(self, batch: Batch, optimizer: OptimizerConfig) -> dict[str, Run]:
        """One step of noise, loss, backward pass, clipping, AdamW and moving average, continuing from the last."""
        x0, text, mask = self._tensors(batch)
        weights = list(self._dit.parameters())
        averages = [values.detach().clone() for values in weights]
        average = get_ema_multi_avg_fn(optimizer.ema_decay)
        betas = (optimizer.beta1, optimizer.beta2)
        adam = torch.optim.AdamW(
            weights, optimizer.learning_rate, betas, weight_decay=optimizer.weight_decay, fused=True
        )

        def loss() -> Tensor:
            noise, t = torch.randn_like(x0), torch.sigmoid(torch.randn(len(x0), device=x0.device))
            t_column = t[:, None, None, None, None]
            cast = {name: values.to(self._dtype) for name, values in self._dit.named_parameters()}
            velocity = functional_call(self._dit, cast, ((1 - t_column) * x0 + t_column * noise, t, text, mask))
            return functional.mse_loss(velocity.float(), noise - x0)

        def step(loss: Callable[[], Tensor]) -> None:
            loss().backward()
            nn.utils.clip_grad_norm_(weights, optimizer.clip_norm)
            adam.step()
            adam.zero_grad()
            with torch.no_grad():
                average(averages, weights, 0)
            self._wait()

        return {"eager": partial(step, loss), "compiled": partial(step, torch.compile(loss))}

    def sample(self, batch: Batch, null: Batch, scale: float, times: tuple[float, float]) -> dict[str, Run]:
        """One Euler step between two times, with guidance of `scale` away from the null text."""
        dit = copy.deepcopy(self._dit).to(self._dtype)
        x, text, mask = self._tensors(batch)
        null_text, null_mask = (torch.from_numpy(null[name]).to(x.device) for name in ("text", "text_mask"))
        both_text, both_mask = torch.cat([text, null_text]), torch.cat([mask, null_mask])
        t = torch.full((2 * len(x),), times[0], device=x.device)

        def update() -> Tensor:
            both: Tensor = dit(torch.cat([x, x]), t, both_text, both_mask).float()
            conditional, unconditional = both.chunk(2)
            return x + (times[1] - times[0]) * (unconditional + scale * (conditional - unconditional))

        def step(update: Callable[[], Tensor]) -> Tensor:
            with torch.inference_mode():
                x_next = update()
            self._wait()
            return x_next

        return {"eager": partial(step, update), "compiled": partial(step, torch.compile(update))}

    def _tensors(self, batch: Batch) -> list[Tensor]:
        return [torch.from_numpy(batch[name]).to(self._device) for name in ("latents", "text", "text_mask")]

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

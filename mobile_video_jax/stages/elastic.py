"""Elastic training (SnapGen++, arXiv 2601.08303): a transformer and some of its widths learn together."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import Latents, Rng, Scalar
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.rng import named_key, step_key
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.distill.balance import balanced_sum, with_gradient
from mobile_video_jax.dit.elastic import (
    WIDTHS,
    own_params,
    sliced,
    whole_network,
    width_config,
    width_name,
    width_params,
)
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.sampling import STANDARD, Sampling
from mobile_video_jax.stages.config import ElasticTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.noisy_batch import NoisyBatch
from mobile_video_jax.train.stage import Batch, Cost, Loss, Metrics, Params


class ElasticStage(DitStage):
    """Flow matching of the whole network and of one width a step, which also learns the whole one's velocity.

    L = L_FM(whole) + L_FM(width) + w |v_width - stop(v_whole)|^2, each width as often; the gradients of both networks
    are brought to one size, as `balance` says. Parameters are the whole network's and the widths' own
    (dit/elastic.py): every command reads such a run as the whole network.
    """

    config: ElasticTraining

    def __init__(self, config: ElasticTraining, sampling: Sampling = STANDARD):
        super().__init__(config, sampling)
        check_widths(config.widths)
        models = {width: width_config(self.config.transformer, width) for width in config.widths}
        self.members = {
            width: Denoiser(dataclasses.replace(self.config, model=model), sampling) for width, model in models.items()
        }

    @property
    def networks(self) -> dict[float, Denoiser]:
        """Each network by its width, the whole one's being 1."""
        return {**self.members, 1.0: self.denoiser}

    def init(self, rng: Rng) -> Params:
        own = {
            width_name(width): own_params(member.init(named_key(rng, width_name(width))))
            for width, member in self.members.items()
        }
        return super().init(rng) | {WIDTHS: own}

    def network_params(self, params: Params) -> Params:
        return whole_network(params)

    def width_params(self, params: Params, width: float) -> Params:
        """The parameters of the network of a width."""
        return width_params(params, width, self.members[width].parameter_shapes)

    @property
    def losses(self) -> tuple[Loss, ...]:
        """The losses of steps with each width."""
        return tuple(functools.partial(self.loss, width=width) for width in self.members)

    def loss_index(self, step: jax.Array) -> jax.Array:
        return jax.random.randint(named_key(step_key(self.config.seed, step), "width"), (), 0, len(self.members))

    def loss(self, params: Params, batch: Batch, rng: Rng, width: float | None = None) -> tuple[Scalar, Metrics]:
        """The loss of a step with a width, the first one where none is named."""
        noisy, width = self.training_batch(batch, rng), width or self.config.widths[0]
        whole = functools.partial(self._whole_loss, noisy=noisy)
        part = functools.partial(self._width_loss, noisy=noisy, width=width)
        if self.config.balance == "none":
            whole_loss, velocity = whole(params)
            part_loss, metrics = part(params, jax.lax.stop_gradient(velocity))
            return whole_loss + part_loss, metrics | {"loss_whole": whole_loss}
        fixed = jax.lax.stop_gradient(params)
        (whole_loss, velocity), gradient = jax.value_and_grad(whole, has_aux=True)(fixed)
        (part_loss, metrics), part_gradient = jax.value_and_grad(part, has_aux=True)(fixed, velocity)
        gradient = balanced_sum(gradient, part_gradient, self.config.balance)
        loss = with_gradient(whole_loss + part_loss, params, gradient)
        return loss, metrics | {"loss_whole": whole_loss}

    def _whole_loss(self, params: Params, noisy: NoisyBatch) -> tuple[Scalar, Latents]:
        velocity = self.denoiser.velocity(whole_network(params), *noisy.inputs)
        return jnp.mean(noisy.errors(velocity)), velocity

    def _width_loss(self, params: Params, taught: Latents, noisy: NoisyBatch, width: float) -> tuple[Scalar, Metrics]:
        velocity = self.members[width].velocity(self.width_params(params, width), *noisy.inputs)
        flow = jnp.mean(noisy.errors(velocity))
        distance = jnp.mean(noisy._replace(target=taught).errors(velocity))
        metrics = {f"loss_{width_name(width)}": flow, f"kd_{width_name(width)}": distance}
        return flow + self.config.kd_weight * distance, metrics

    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics:
        """The held-out errors of the whole network, and the loss of each width by its name."""
        metrics = super().evaluate_batch(params, batch, rng)
        for width, stage in self._stages.items():
            part = stage.evaluate_batch(self.width_params(params, width), batch, rng)
            metrics |= {f"loss_{width_name(width)}": part["loss"]}
        return metrics

    @functools.cached_property
    def _stages(self) -> dict[float, DitStage]:
        """Each width as a plain stage."""
        return {
            width: DitStage(dataclasses.replace(self.config, model=member.config.model))
            for width, member in self.members.items()
        }

    def pretrained(self, target: Params) -> Params:
        """The network of `init_from`; of another than an elastic run of these widths, slices for what is their own."""
        if not self.source:
            return {}
        if self.source.stage == self.config.stage and set(self.config.widths) <= set(self.source.config["widths"]):
            self.denoiser.check_continues(self.source.denoiser)
            return self.source.params(target)
        network = super().pretrained(whole_network(target))
        own = {
            width_name(width): sliced(own_params(network), own_params(member.parameter_shapes))
            for width, member in self.members.items()
        }
        return network | {WIDTHS: jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), own, target[WIDTHS])}

    def cost(self, devices: int | None = None) -> Cost:
        """The whole network's pass and that of a mean width, forward and backward."""
        whole = DitStage(self.config).cost(devices)
        parts = [stage.cost(devices).flops for stage in self._stages.values()]
        return Cost(whole.tokens, whole.flops + sum(parts) // len(parts))

    def description(self) -> dict[str, Any]:
        counts = {width_name(width): count_parameters(x.parameter_shapes) for width, x in self.members.items()}
        return super().description() | {WIDTHS: counts}

    def inspect(self) -> dict[str, Any]:
        """Also parameters, FLOPs and estimated phone time of each width."""
        costs = {width: member.inspect() for width, member in self.members.items()}
        widths = {
            width_name(width): {
                "parameters": cost["parameters"]["total"],
                "flops": cost["flops"]["total"],
                "phone_seconds": cost["phone_seconds"],
            }
            for width, cost in costs.items()
        }
        return super().inspect() | {WIDTHS: widths}


def check_widths(widths: tuple[float, ...]) -> None:
    """Raises UserError for no widths, the whole one, and two of one name."""
    names = [width_name(width) for width in widths]
    if not widths or 1.0 in widths or len(set(names)) < len(names):
        raise UserError("widths: name some below 1, each once; the whole network is always trained")

"""Training of LazyDiT's gates (arXiv 2412.12444): scores by which a sampling step has outputs of the one before."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Latents, Rng, Scalar
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.cost.flops import count_flops, count_parameters
from mobile_video_jax.diffusion.guidance import drop_captions
from mobile_video_jax.diffusion.path import interpolate
from mobile_video_jax.diffusion.timesteps import listed_times, time_grid
from mobile_video_jax.dit.gates import THRESHOLD, mixed_velocity, plain_outputs
from mobile_video_jax.dit.step_table import COMPUTED, MODULES, SOLVERS
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.models.config import DenoiserConfig
from mobile_video_jax.models.network_config import as_transformer
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.sampling import STANDARD, Sampling
from mobile_video_jax.nn.dense import zeros
from mobile_video_jax.nn.module import partitioned
from mobile_video_jax.stages.config import LazyTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.held_out import mean_over_clips
from mobile_video_jax.train.stage import Batch, Cost, Metrics, Params


class LazyStage(DitStage):
    """Parameters are {"gates": {"vectors" [s l 2 d]}, "network"}, the latter frozen.

    The loss is the published one: the squared difference of the mixed velocity from that of the whole network at the
    same state, and rho times the sum over modules of 1 - score. A clip is noised to a random step of the sampler but
    the last and takes one plain step, so that the outputs it mixes in are those of the step before.
    """

    config: LazyTraining

    @classmethod
    def build(cls, config: Any) -> "LazyStage":
        """The stage for the run in `init_from`, its sizes, latents, captions and times."""
        if not config.init_from:
            return cls(config)
        source = Run.open(config.init_from)
        known = {
            field.name: getattr(source.denoiser.config, field.name) for field in dataclasses.fields(DenoiserConfig)
        }
        stage = cls(dataclasses.replace(config, **known), source.denoiser.sampling)
        stage.source = source
        return stage

    def __init__(self, config: LazyTraining, sampling: Sampling = STANDARD):
        super().__init__(config, sampling)
        self.sampler = lazy_sampler(self.denoiser, config.sampling_steps, single=config.across == "chunks")

    def init(self, rng: Rng) -> Params:
        model = as_transformer(self.config.model)
        shape = (self.sampler.steps, len(model.block_shapes), len(MODULES), model.width)
        vectors = partitioned(zeros, (None, None, None, None))(rng, shape)
        return {"gates": {"vectors": vectors}, "network": self.denoiser.init(rng)}

    @property
    def frozen(self) -> frozenset[str]:
        return frozenset({"network"})

    def ema_params(self, params: Params) -> Params:
        """The gates without the network."""
        return params | {"network": {}}

    def network_params(self, params: Params) -> Params:
        return params["network"]

    def pretrained(self, target: Params) -> Params:
        return {"network": self.source.params(target["network"])} if self.source else {}

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        rate, empty = self.config.caption_dropout, self.empty_caption
        text, mask = drop_captions(named_key(rng, "captions"), batch["text"], batch["text_mask"], rate, empty)
        first = jax.random.randint(named_key(rng, "steps"), (), 0, self.sampler.steps)
        terms = self._terms(params, batch | {"text": text, "text_mask": mask}, first, named_key(rng, "noise"))
        metrics = {name: jnp.mean(value) for name, value in terms.items()}
        return metrics["error"] + self.config.penalty * metrics["computed"], metrics

    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics:
        """The terms of the loss on held-out clips with their captions, and the share of scores above the threshold."""
        terms = self._terms(params, batch, jnp.zeros((), jnp.int32), rng)
        means = {name: mean_over_clips(value, batch) for name, value in terms.items()}
        return {"loss": means["error"] + self.config.penalty * means["computed"], **means}

    def _terms(self, params: Params, batch: Batch, first: jax.Array, rng: Rng) -> dict[str, Float[Array, "b"]]:
        """Of each clip the error of the mixed velocity, the sum of 1 - score, and the share of modules to reuse.

        Clips take the steps in turn, from step number `first`.
        """
        x0, network = batch["latents"], jax.lax.stop_gradient(params["network"])
        dit, grid = self.denoiser.network, self.time_grid(math.prod(x0.shape[1:4]))
        step = 1 + (jnp.arange(len(x0)) + first) % (self.sampler.steps - 1)
        captions = batch["text"], batch["text_mask"], batch.get("latent_mask")
        before, t = grid[step - 1], grid[step]
        noised = interpolate(x0, jax.random.normal(rng, x0.shape), before)
        velocity, outputs = plain_outputs(dit, network, noised, before, *captions)
        x_t: Latents = noised + (t - before)[:, None, None, None, None] * velocity
        x_t, outputs = jax.lax.stop_gradient((x_t, outputs))
        whole = self.denoiser.velocity(network, x_t, t, *captions)
        mixed, scores = mixed_velocity(dit, network, params["gates"]["vectors"][step], outputs, x_t, t, *captions)
        return {
            "error": jnp.mean((mixed - jax.lax.stop_gradient(whole)) ** 2, axis=(1, 2, 3, 4)),
            "computed": jnp.sum(1 - scores, axis=(1, 2)),
            "lazy": jnp.mean(scores > THRESHOLD, axis=(1, 2)),
        }

    def time_grid(self, tokens: int) -> Float[Array, "n"]:
        """The sampler's times for clips of so many tokens."""
        if self.sampler.times:
            return listed_times(self.sampler.times)
        return time_grid(self.sampler.steps, **self.denoiser.sampled_times(tokens))

    def sample_config(self) -> SampleConfig:
        return self.sampler

    def cost(self, devices: int | None = None) -> Cost:
        """FLOPs of the gradient itself, which needs no product for the network's parameters."""

        def loss(gates: Params, network: Params, batch: Batch, rng: Rng) -> Scalar:
            return self.loss({"gates": gates, "network": network}, batch, rng)[0]

        inputs = (self.abstract_batch(devices), jax.random.key(0))
        flops = count_flops(jax.grad(loss), self.shapes["gates"], self.shapes["network"], *inputs)
        return Cost(self.batch_tokens(devices), sum(flops.values()))

    def description(self) -> dict[str, Any]:
        described = super().description()
        return {**described, "gates": count_parameters(self.shapes["gates"]), "sampling_steps": self.sampler.steps}


def lazy_sampler(denoiser: Any, steps: int = 0, *, single: bool = False) -> SampleConfig:
    """The settings of the sampler that is made faster: the denoiser's own, in so many steps unless 0.

    Raises UserError for a step that has none before it, unless a `single` one will do, for times that the denoiser was
    not distilled at, and for a solver of two evaluations a step.
    """
    own = denoiser.sampling
    steps = steps or own.steps
    if own.solver not in SOLVERS:
        raise UserError(f"solver '{own.solver}' evaluates the network twice a step: use a run of {', '.join(SOLVERS)}")
    if steps < 2 and not single:
        raise UserError("a single step has none before it: use 2 steps or more")
    nothing = (COMPUTED * len(MODULES) * len(as_transformer(denoiser.config.model).block_shapes),) * steps
    times = own.times if steps == len(own.times) else ()
    config = SampleConfig(steps, own.guidance, solver=own.solver, times=times, reuse=nothing)
    sampled = denoiser.sampled_times(denoiser.tokens)
    grid = listed_times(times) if times else time_grid(steps, **sampled)
    own.check(grid[:-1].tolist())
    return config.with_times(**sampled)

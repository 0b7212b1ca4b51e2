"""Quantisation: weights as palettes of few bits, and biases, norms and other small tensors tuned to them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from mobile_video_jax.core.arrays import Rng, Scalar
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json, write_json
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.cost.flops import count_flops
from mobile_video_jax.diffusion.timesteps import stratified_times
from mobile_video_jax.distill.kd import relative_errors
from mobile_video_jax.dit.stacking import unstack_blocks
from mobile_video_jax.models.network_config import as_transformer
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.distributed import is_first, to_hosts
from mobile_video_jax.parallel.mesh import put_batch
from mobile_video_jax.stages.config import QuantiseTraining
from mobile_video_jax.stages.noisy_batch import noisy_batch
from mobile_video_jax.stages.recover import RecoverStage
from mobile_video_jax.stages.student import StudentStage
from mobile_video_jax.train.checkpoint import newest_step
from mobile_video_jax.train.held_out import mean_over_clips
from mobile_video_jax.train.stage import Batch, Cost, Metrics, Params
from mobile_video_jax.weights.mixed_bits import BITS, LEAST_NUMBERS, Layer, Recipe, assign, scaled_errors
from mobile_video_jax.weights.palette import palettized

RECIPE = "quantised.json"  # bits of each weight, by its path


class QuantiseStage(RecoverStage):
    """Self-distillation of what is left of a network whose weights are palettes (SnapGen++, arXiv 2601.08303).

    Parameters are the student's "palettes", frozen, its "tuned" small tensors, and the teacher, which is the network
    before. The run that is left has both as one network, whose weights any export finds in as few bits.
    """

    config: QuantiseTraining

    @classmethod
    def build(cls, config: QuantiseTraining) -> "StudentStage":
        """The stage of a config: the teacher is the run in `init_from`, without which the config's own sizes count.

        Raises UserError for another teacher.
        """
        if config.teacher not in ("", config.init_from):
            raise UserError("a quantised run learns from the run in init_from: leave out --config.teacher")
        if not config.init_from:
            config = dataclasses.replace(config, teacher_model=config.model)
        return super().build(dataclasses.replace(config, teacher=config.init_from))

    @classmethod
    def completions(cls, config: Any, source: Run, teacher: Run, pruned: dict[str, Any]) -> dict[str, Any]:
        """The student has the teacher's sizes, each block a tree of its own: scanned ones would share no palette."""
        shared = super().completions(config, source, teacher, pruned)
        return shared | {"model": dataclasses.replace(as_transformer(shared["model"]), scan=False, remat="none")}

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.recipe: Recipe = {}  # of the run that goes on, or measured where one begins

    def init(self, rng: Rng) -> Params:
        params = super().init(rng)
        return split(params["student"]) | {"teacher": params["teacher"]}

    @property
    def frozen(self) -> frozenset[str]:
        return frozenset({"palettes", "teacher"})

    def ema_params(self, params: Params) -> Params:
        """The student's, as one network, beside the teacher that it is evaluated against."""
        return {**joined(params), "teacher": {}}

    def network_params(self, params: Params) -> Params:
        return {name: part for name, part in params.items() if name != "teacher"}

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        return super().loss({"student": joined(params), "teacher": params["teacher"]}, batch, rng)

    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics:
        """The held-out error of the velocity, |v - v'|^2 / |v|^2 with v of the network before, and flow matching's."""
        metrics = super().evaluate_batch(params, batch, rng)
        x0 = batch["latents"]
        t = stratified_times(x0.shape[0], shift=self.time_shift(x0))
        noisy = noisy_batch(batch, t, batch["text"], batch["text_mask"], named_key(rng, "noise"))
        velocity = self.denoiser.velocity(self.network_params(params), *noisy.inputs)
        errors = relative_errors(velocity, self.teacher.velocity(params["teacher"], *noisy.inputs), noisy.mask)
        return metrics | {"flow_loss": metrics["loss"], "loss": mean_over_clips(errors, batch)}

    def train_batches(self, mesh: Mesh) -> grain.IterDataset:
        if not self.source:
            raise UserError("only a trained run can be quantised: name the run to quantise with --config.init_from=RUN")
        return super().train_batches(mesh)

    def pretrained(self, target: Params) -> Params:
        """The teacher, its weights as palettes, and all else of it as it is."""
        if not self.teacher_run:
            return {}
        mesh = jax.tree.leaves(target["palettes"])[0].sharding.mesh
        teacher = self.teacher_run.params(self.teacher.abstract_params(mesh))
        student = unstack_blocks(teacher)
        parts = split(student)
        weights = flatten_dict(parts["palettes"], sep="/")
        if not self.recipe:
            batch = put_batch(self._calibration_batch(mesh), mesh)
            self.recipe = self._measured_recipe(student, weights, batch)
        shardings = {path: x.sharding for path, x in flatten_dict(target["palettes"], sep="/").items()}
        palettes = {
            path: jax.device_put(_as_palette(to_hosts(weight), self.recipe[path]), shardings[path])
            for path, weight in weights.items()
        }
        parts |= {"palettes": unflatten_dict(palettes, sep="/"), "teacher": teacher}
        return {part: parts[part] for part in target}

    def _calibration_batch(self, mesh: Mesh) -> Batch:
        """The first training batch."""
        batch = dict(next(iter(self.train_batches(mesh))))
        batch.pop("record", None)
        return batch

    def _measured_recipe(self, student: Params, weights: Mapping[str, Any], batch: Batch) -> Recipe:
        """The bits of each weight, by the error of the velocity where it alone has a palette of 4 bits."""
        noisy = jax.jit(self.training_batch)(batch, named_key(jax.random.key(self.config.seed), "calibration"))
        velocity = jax.jit(lambda params, noisy: self.denoiser.velocity(params, *noisy.inputs))
        reference = velocity(student, noisy)
        flat = flatten_dict(student, sep="/")

        def layer(path: str, weight: Any) -> Layer:
            values = to_hosts(weight)
            palettes = [palettized(values, bits) for bits in BITS[:-1]]
            changed = unflatten_dict(flat | {path: jax.device_put(palettes[0], weight.sharding)}, sep="/")
            error = float(jnp.mean(relative_errors(velocity(changed, noisy), reference, noisy.mask)))
            distances = [float(np.sum((palette - values) ** 2)) for palette in palettes]
            return Layer(path, values.size, scaled_errors(error, distances))

        return assign([layer(path, weight) for path, weight in weights.items()], bits=self.config.bits)

    def check(self, run: Path) -> None:
        super().check(run)
        record = read_json(run / RECIPE, "bits")
        self.recipe = record["bits"]
        if self.source and (begun := record.get("step", self.source.step)) != self.source.step:
            path, now = self.source.path, self.source.step
            raise UserError(f"{run} quantises step {begun} of {path}, not {now}: set --config.init_from={path}@{begun}")

    def start(self, run: Path) -> None:
        super().start(run)
        if is_first() and self.source and newest_step(run) is None:  # a file of before would be of other palettes
            step = self.source.step
            write_json(run / RECIPE, {"mean_bits": self.mean_bits, "step": step, "bits": self.recipe})

    @property
    def mean_bits(self) -> float:
        """Bits a weight, on average over those that have palettes."""
        sizes = {path: x.size for path, x in flatten_dict(self.shapes["palettes"], sep="/").items()}
        return float(sum(sizes[path] * bits for path, bits in self.recipe.items()) / sum(sizes.values()))

    @property
    def sampling(self) -> dict[str, Any]:
        """That of the network before, its reuse table as well."""
        return super().sampling | {"reuse": self.sampled_like.sampling.reuse}

    def cost(self, devices: int | None = None) -> Cost:
        """FLOPs of the gradient itself, which needs none of the weights'."""
        fixed = {part: self.shapes[part] for part in self.frozen}

        def loss(tuned: Params, fixed: Params, batch: Batch, rng: Rng) -> Scalar:
            return self.loss({**fixed, "tuned": tuned}, batch, rng)[0]

        inputs = (fixed, self.abstract_batch(devices), jax.random.key(0))
        flops = count_flops(jax.grad(loss), self.shapes["tuned"], *inputs)
        return Cost(self.batch_tokens(devices), sum(flops.values()))


def joined(params: Params) -> Params:
    """The student as one network."""
    network: Params = unflatten_dict(flatten_dict(params["palettes"]) | flatten_dict(params["tuned"]))
    return network


def split(student: Params) -> dict[str, Params]:
    """The tensors that become palettes and those that are tuned, both at their places."""
    flat = flatten_dict(student)
    has_palette = {path: _is_weight(nn.unbox(x).shape) for path, x in flat.items()}
    return {
        part: unflatten_dict({path: x for path, x in flat.items() if has_palette[path] == (part == "palettes")})
        for part in ("palettes", "tuned")
    }


def _is_weight(shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and int(np.prod(shape)) >= LEAST_NUMBERS


def _as_palette(weight: np.ndarray, bits: int) -> np.ndarray:
    return weight if bits == BITS[-1] else palettized(weight, bits)

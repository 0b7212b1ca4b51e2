"""Releases of Wan's text-to-video models: pipelines' folders in diffusers' layout."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.interop import wan_transformer, wan_vae
from mobile_video_jax.interop.diffusers_folder import INDEX, TRANSFORMERS, Component, open_network, read_scheduler
from mobile_video_jax.interop.release import Origin, Parts, PipelineFolder, Published, Release
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.sampling import Sampling
from mobile_video_jax.models.vae import VaeBundle
from mobile_video_jax.vae.wan.model import WanVae
from mobile_video_jax.weights.huggingface import read_settings

PIPELINE, SCHEDULER = "WanPipeline", "UniPCMultistepScheduler"
# The second for Wan 2.2 TI2V alone: its weights are the same in both, others of that class take an image as channels.
PIPELINES = (PIPELINE, "WanImageToVideoPipeline")
INDEX_KEYS = ("boundary_ratio", "expand_timesteps", "image_encoder", "image_processor")  # kept for an export
# Values of diffusion/unipc.py and the schedule "thousandth"; other values describe other samplers.
SOLVER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "solver_order": 2,
    "prediction_type": "flow_prediction",
    "thresholding": False,
    "predict_x0": True,
    "solver_type": "bh2",
    "lower_order_final": True,
    "disable_corrector": [],
    "solver_p": None,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_flow_sigmas": True,
    "final_sigmas_type": "zero",
    "use_dynamic_shifting": False,
    "shift_terminal": None,
}
# Settings without effect where sigmas are those of flows.
UNUSED = {
    *("beta_start", "beta_end", "beta_schedule", "trained_betas", "dynamic_thresholding_ratio", "sample_max_value"),
    *("timestep_spacing", "steps_offset", "rescale_betas_zero_snr", "time_shift_type", "sigma_min", "sigma_max"),
}
TEXT = {"text_encoder": ("transformers", "UMT5EncoderModel"), "tokenizer": ("transformers", "T5TokenizerFast")}
FRAME_RATES = {False: 16.0, True: 24.0}  # by the VAE's `residual`: Wan 2.1 and A14B, Wan 2.2 TI2V


@dataclasses.dataclass(frozen=True)
class WanRelease(Release):
    """An opened release of Wan."""

    shift: float  # time shift of the schedule
    low_noise: Component | None = None  # the second expert; `transformer` is then that of high noise
    boundary: float = 0.0  # time from which that of high noise is evaluated

    def parts(self, frame_rate: float | None) -> Parts:
        """The parts; positions do not depend on the frame rate. Raises UserError for other networks."""
        vae_config = wan_vae.vae_config(self.vae.settings)
        model = wan_transformer.dit_config(self.transformer.settings)
        sizes = wan_transformer.DEFAULTS | self.transformer.settings
        rate = frame_rate or FRAME_RATES[vae_config.residual]
        return Parts(
            model=model,
            transformers=tuple(
                Published(dict(expert.tensors), wan_transformer.sources(model))
                for expert in (self.transformer, self.low_noise)
                if expert
            ),
            vae_network=WanVae(vae_config),
            vae=Published(dict(self.vae.tensors), wan_vae.sources(vae_config)),
            stats=wan_vae.latent_stats(self.vae.settings, vae_config),
            channels=sizes["in_channels"] * wan_transformer.PATCH**2,
            text_width=sizes["text_dim"],
            text=self.text,
            text_kind="wan",
            times={"time_shift": self.shift, "time_schedule": "thousandth"},
            sampling=dataclasses.replace(self.sampling, frame_rate=rate),
            origin=self.origin,
            starts_from_images=bool(self.origin["index"].get("expand_timesteps")),
        )

    @property
    def sampling(self) -> Sampling:
        """Steps and guidance of the published defaults: of A14B those of its own code."""
        if self.low_noise:
            return Sampling(40, guidance=4.0, guidance_2=3.0, boundary=self.boundary, solver="unipc")
        return Sampling(50, guidance=5.0, solver="unipc")


def open_folder(folder: Path, pipeline: str) -> WanRelease:
    """Opens the folder of a pipeline. Raises UserError where it is incomplete, as where an expert is missing."""
    index = read_settings(folder / INDEX)
    if pipeline != PIPELINE and not index.get("expand_timesteps"):
        raise UserError(
            f"{folder} takes its image as further channels, which no network here does: name the folder of "
            "Wan 2.2 TI2V, or of text to video"
        )
    boundary = _boundary(folder, index)
    scheduler = read_scheduler(folder / "scheduler", SCHEDULER)
    transformers = [open_network(folder / name, wan_transformer.CLASS) for name in TRANSFORMERS[: 1 + bool(boundary)]]
    _check_equal(folder, transformers)
    return WanRelease(
        transformer=transformers[0],
        low_noise=transformers[1] if boundary else None,
        boundary=boundary,
        vae=open_network(folder / "vae", wan_vae.CLASS),
        shift=parse_scheduler(scheduler),
        text=folder,
        origin={
            "pipeline": pipeline,
            "scheduler": scheduler,
            "index": {key: index[key] for key in INDEX_KEYS if key in index},
            "text": {key: index[key] for key in TEXT if key in index},
        },
    )


def _boundary(folder: Path, index: Mapping[str, Any]) -> float:
    """The time from which the expert of high noise is evaluated; 0: the pipeline has one transformer."""
    ratio = index.get("boundary_ratio")
    named = {name: isinstance(index.get(name), list) and bool(index[name][:1] != [None]) for name in TRANSFORMERS}
    if ratio is None and not named["transformer_2"]:
        return 0.0
    if not isinstance(ratio, float | int) or not 0 < ratio < 1:
        raise UserError(f"{folder / INDEX}: boundary_ratio={ratio} is no time between two experts: download it again")
    for name in TRANSFORMERS:
        if not named[name] or not (folder / name).is_dir():
            raise UserError(f"{folder} has two experts (boundary_ratio={ratio}), {name} is missing: download it too")
    return float(ratio)


def _check_equal(folder: Path, transformers: Sequence[Component]) -> None:
    if len(transformers) > 1 and _same_weights(*transformers):
        raise UserError(f"{folder}: {' and '.join(TRANSFORMERS)} hold the same weights: download both experts again")
    first, *others = ({key: x for key, x in each.settings.items() if key[0] != "_"} for each in transformers)
    for other in others:
        for key in sorted(first.keys() | other.keys()):
            if first.get(key) != other.get(key):
                raise UserError(
                    f"{folder}: the experts differ in {key}, {first.get(key)} and {other.get(key)}: "
                    "name the folder of one release"
                )


def _same_weights(one: Component, other: Component) -> bool:
    """Whether the output layers are equal, which no two experts share."""
    name = "proj_out.weight"
    if not all(name in each.tensors for each in (one, other)):
        return False
    return np.array_equal(np.asarray(one.tensors[name][...]), np.asarray(other.tensors[name][...]))


def pipeline_folder(run: Run, bundle: VaeBundle, origin: Origin) -> PipelineFolder:
    """A run as a pipeline's folder, with the scheduler of `origin` where the run still samples so.

    Raises UserError where diffusers has no class for the network or the sampler.
    """
    config = run.sampled.config
    vae: Any = bundle.vae.config
    if (config.time_schedule, config.shift_follows_tokens) != ("thousandth", False):
        raise UserError(f"{run} does not sample as {PIPELINE} does: set time_schedule=thousandth, its time_shift alone")
    scheduler = origin.get("scheduler", {"use_flow_sigmas": False})
    is_unchanged = scheduler.get("use_flow_sigmas") and parse_scheduler(scheduler) == config.time_shift
    texts = {name: (library, kind) for name, (library, kind) in origin.get("text", {}).items()}
    return PipelineFolder(
        index={
            "_class_name": origin.get("pipeline", PIPELINE),
            **origin.get("index", {}),
            "boundary_ratio": run.sampled.sampling.boundary or None,
        },
        scheduler=scheduler if is_unchanged else scheduler_settings(config.time_shift),
        transformer=wan_transformer.settings(config.transformer, vae.strides.channels, config.text_width),
        transformer_sources=wan_transformer.sources(config.transformer),
        vae=wan_vae.settings(vae, bundle.stats),
        vae_sources=wan_vae.sources(vae),
        statistics={},
        text=TEXT | texts,
        missing=TRANSFORMERS[len(run.experts) :],
    )


def parse_scheduler(settings: Mapping[str, Any]) -> float:
    """The time shift of scheduler_config.json. Raises UserError naming a setting that is not supported."""
    defaults = {"prediction_type": "epsilon", "use_flow_sigmas": False}
    for key, value in {**defaults, **settings}.items():
        if key.startswith("_") or key in UNUSED | {"flow_shift"}:
            continue
        if key not in SOLVER:
            raise UserError(f"scheduler: {key}={value} is not known here: use Wan's scheduler")
        if value != SOLVER[key]:
            raise UserError(f"scheduler: {key}={value} is not supported; Wan's is {SOLVER[key]}")
    return float(settings.get("flow_shift", 1.0))


def scheduler_settings(shift: float) -> dict[str, Any]:
    """The scheduler_config.json of a time shift: inverse of parse_scheduler."""
    return {"_class_name": SCHEDULER, **SOLVER, "flow_shift": shift}

"""Releases of LTX-Video: a pipeline's folder in diffusers' layout, or an original release's file."""

import dataclasses
from pathlib import Path
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.interop import ltx_sampler, ltx_transformer, ltx_vae
from mobile_video_jax.interop.diffusers_folder import open_network, read_scheduler
from mobile_video_jax.interop.ltx_sampler import Sampler
from mobile_video_jax.interop.ltx_single_file import open_single_file, read_sampler
from mobile_video_jax.interop.release import Origin, Parts, PipelineFolder, Published, Release
from mobile_video_jax.models.config import SolverName
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.sampling import Sampling
from mobile_video_jax.models.vae import VaeBundle
from mobile_video_jax.vae.ltx.model import LtxVae

FRAME_RATE = 25.0
DISTILLED_STEPS = 8  # of the schedule, where a folder of a distilled release lists no times


@dataclasses.dataclass(frozen=True)
class LtxRelease(Release):
    """An opened release of LTX-Video."""

    sampler: Sampler

    def parts(self, frame_rate: float | None) -> Parts:
        """The parts, with positions for clips of `frame_rate` frames a second. Raises UserError for other networks."""
        rate, vae_config = frame_rate or FRAME_RATE, ltx_vae.vae_config(self.vae.settings)
        model = ltx_transformer.dit_config(
            self.transformer.settings,
            frame_rate=rate,
            time_stride=vae_config.strides.time,
            space_stride=vae_config.strides.space,
            causal=self.sampler.causal,
        )
        sizes = ltx_transformer.DEFAULTS | self.transformer.settings
        network = {name: x for name, x in self.vae.tensors.items() if name not in ltx_vae.STATISTICS}
        return Parts(
            model=model,
            transformers=(Published(dict(self.transformer.tensors), ltx_transformer.sources(model)),),
            vae_network=LtxVae(vae_config),
            vae=Published(network, ltx_vae.sources(vae_config)),
            stats=ltx_vae.latent_stats(self.vae.tensors, self.vae.settings),
            channels=sizes["in_channels"],
            text_width=sizes["caption_channels"],
            text=self.text,
            text_kind=self.sampler.text,
            times={
                "time_shift": self.sampler.shift,
                "shift_follows_tokens": self.sampler.follows_tokens,
                "time_terminal": self.sampler.terminal,
                "time_schedule": self.sampler.schedule,
            },
            sampling=_sampling(self.sampler, rate),
            origin=self.origin,
            starts_from_images=True,
        )


def open_folder(folder: Path, pipeline: str) -> LtxRelease:
    """Opens the folder of a pipeline of that class. Raises UserError where it is incomplete."""
    scheduler = read_scheduler(folder / "scheduler", ltx_sampler.KIND)
    return LtxRelease(
        transformer=open_network(folder / "transformer", ltx_transformer.CLASS),
        vae=open_network(folder / "vae", ltx_vae.CLASS),
        sampler=ltx_sampler.parse_scheduler(scheduler, pipeline),
        text=folder,
        origin={"pipeline": pipeline, "scheduler": scheduler},
    )


def open_original(file: Path, text: Path, solver: str | None = None) -> LtxRelease:
    """Opens a release's single file; `text` holds text_encoder/ and tokenizer/.

    `solver`, euler or renoise, is of distilled ones, whose headers list their times and not what a step does. Raises
    UserError as open_folder, and where it is missing or of another release.
    """
    transformer, vae = open_single_file(file)
    sampler = read_sampler(file, vae)
    if sampler.times and not solver:
        raise UserError(
            f"{file} is distilled, and its header does not say whether a step draws noise afresh: "
            "add --solver=renoise for 0.9.6-distilled, --solver=euler for later ones"
        )
    if solver and not sampler.times:
        raise UserError(f"{file} lists no times, so it is not distilled: leave --solver out")
    sampler = dataclasses.replace(sampler, renoises=solver == "renoise")
    return LtxRelease(transformer, vae, text, origin={}, sampler=sampler)


def pipeline_folder(run: Run, bundle: VaeBundle, origin: Origin) -> PipelineFolder:
    """A run as a pipeline's folder, with the class and scheduler of `origin` where the run still samples so.

    Raises UserError where diffusers has no class for the network or the sampler.
    """
    config = run.denoiser.config
    vae: Any = bundle.vae.config
    pipeline, scheduler = _published_sampler(run.denoiser, origin)
    return PipelineFolder(
        index={"_class_name": pipeline},
        scheduler=scheduler,
        transformer=ltx_transformer.settings(config.transformer, vae.channels, config.text_width),
        transformer_sources=ltx_transformer.sources(config.transformer),
        vae=ltx_vae.settings(vae),
        vae_sources=ltx_vae.sources(vae),
        statistics=ltx_vae.published_stats(bundle.stats),
        text={"text_encoder": ("transformers", "T5EncoderModel"), "tokenizer": ("transformers", "T5Tokenizer")},
    )


def _published_sampler(denoiser: Denoiser, origin: Origin) -> tuple[str, dict[str, Any]]:
    config = denoiser.config
    sampler = Sampler(
        shift=config.time_shift,
        follows_tokens=config.shift_follows_tokens,
        terminal=config.time_terminal,
        schedule=config.time_schedule,
        causal=config.transformer.rope_offset > 0,
        text=config.text_encoder.partition("-")[0],
        renoises=denoiser.sampling.solver == "renoise",
    )
    if origin and ltx_sampler.parse_scheduler(origin["scheduler"], origin["pipeline"]) == sampler:
        return origin["pipeline"], origin["scheduler"]
    return ltx_sampler.pipeline_class(sampler), ltx_sampler.scheduler_settings(sampler)


def _sampling(sampler: Sampler, frame_rate: float) -> Sampling:
    """Guidance and steps of the release's own settings; distilled models take their listed times and no guidance."""
    own = Sampling(frame_rate=frame_rate, guidance=3.0, image_noise=sampler.image_noise)
    if not (sampler.times or sampler.renoises):
        return own
    solver: SolverName = "renoise" if sampler.renoises else "euler"
    steps = len(sampler.times) or DISTILLED_STEPS
    return dataclasses.replace(own, steps=steps, guidance=1.0, solver=solver, times=sampler.times)

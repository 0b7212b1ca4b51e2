"""What the cells of a study of VAEs have in common: steps, training FLOPs, or FLOPs of the decoder.

The first compression of the grid sets the budget: its network has the sizes of the family and its trainings have the
steps of the config.
"""

import dataclasses
import functools

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.config import DitTraining, VaeTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.studies.config import StudyConfig
from mobile_video_jax.studies.learning import evaluation_period
from mobile_video_jax.vae.config import VaeConfig
from mobile_video_jax.vae.decoder_flops import decoder_flops_per_frame
from mobile_video_jax.vae.family import family_member, scaled

TOLERANCE = 0.1  # share of the decoder's budget that a network of whole channels may be off by
TRIALS = 5  # of scales; FLOPs are close to quadratic in the widths, so that two or three suffice


def network(study: StudyConfig, compression: str) -> VaeConfig:
    """The VAE of a cell. Raises UserError where no widths have the decoder's budget."""
    config = family_member(study.size, compression)
    if study.protocol != "decoder" or compression == study.compressions[0]:
        return config
    return _of_flops(
        config, study.server.clip, _decoder_flops(family_member(study.size, study.compressions[0]), study.server.clip)
    )


def vae_phases(study: StudyConfig, compression: str) -> list[VaeTraining]:
    """Training of a cell's VAE, in one phase or two, before the changes of its objective."""
    config = dataclasses.replace(study.vae, model=network(study, compression))
    steps = _steps(study, compression, "vae")
    finetuned = round(steps * study.finetune_steps / study.vae.steps)
    period = evaluation_period(steps)
    return [
        dataclasses.replace(config, steps=part, eval_every=period) for part in (steps - finetuned, finetuned) if part
    ]


def dit_config(study: StudyConfig, compression: str) -> DitTraining:
    """Training of a cell's transformer."""
    return dataclasses.replace(_dit(study, compression), steps=_steps(study, compression, "dit"))


def training_flops(study: StudyConfig, compression: str) -> dict[str, int]:
    """FLOPs of training a cell's VAE and its transformer."""
    return {
        f"{part}_flops": _steps(study, compression, part) * _step_flops(study, compression, part)
        for part in ("vae", "dit")
    }


def _dit(study: StudyConfig, compression: str) -> DitTraining:
    return dataclasses.replace(study.dit, clip=study.vae.clip, compression=compression)


def _steps(study: StudyConfig, compression: str, part: str) -> int:
    """Steps of a training: those of the config, or as many as have the FLOPs of the first compression's."""
    steps: int = getattr(study, part).steps
    if study.protocol != "flops":
        return steps
    first = _step_flops(study, study.compressions[0], part)
    return max(1, round(steps * first / _step_flops(study, compression, part)))


def _step_flops(study: StudyConfig, compression: str, part: str) -> int:
    if part == "vae":
        return _cost(dataclasses.replace(study.vae, model=network(study, compression)))
    return _cost(_dit(study, compression))


@functools.lru_cache(256)
def _cost(config: VaeTraining | DitTraining) -> int:
    stage = VaeStage(config) if isinstance(config, VaeTraining) else DitStage(config)
    return stage.cost().flops


@functools.lru_cache(256)
def _decoder_flops(config: VaeConfig, clip: str) -> int:
    return decoder_flops_per_frame(config, ClipShape.parse(clip))


@functools.lru_cache(256)
def _of_flops(config: VaeConfig, clip: str, budget: int) -> VaeConfig:
    """The config with its widths scaled so that the decoder has the budget, to within TOLERANCE."""
    scale, candidates = 1.0, {_decoder_flops(config, clip): config}
    for _ in range(TRIALS):
        flops = _decoder_flops(scaled(config, scale), clip)
        candidates[flops] = scaled(config, scale)
        scale *= (budget / flops) ** 0.5  # products grow with the square of the widths
    nearest = min(candidates, key=lambda flops: abs(flops - budget))
    if abs(nearest - budget) > TOLERANCE * budget:
        raise UserError(
            f"no widths give {config.compression} the decoder's budget of {budget:.2e} FLOPs a frame; the nearest "
            f"is {nearest:.2e}: use --config.protocol=flops or leave the compression out"
        )
    return candidates[nearest]

"""Costs of a cell of a study of VAEs: of its trainings, and of the paper's clip on a server and on the phone."""

import dataclasses
from typing import Any

import jax

from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.cost.phone.roofline import call_seconds
from mobile_video_jax.cost.phone.trace import ops_of_network
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.studies.budget import network, training_flops
from mobile_video_jax.studies.config import StudyConfig
from mobile_video_jax.vae.decoder_flops import decoder_flops_per_frame
from mobile_video_jax.vae.decoder_phone import decoder_cost
from mobile_video_jax.vae.model import Vae

PHONE_STEPS = 4  # of sampling on the phone, as a distilled transformer takes


def cell_costs(study: StudyConfig, compression: str) -> dict[str, Any]:
    """Costs at a compression, from shapes alone.

    Tokens and FLOPs of one training step of the clip of `study.server`; on the phone, milliseconds of a step of
    `study.mobile` and of decoding, seconds of the whole clip, and the decoder's megabytes.
    """
    clip, model = ClipShape.parse(study.server.clip), network(study, compression)
    server, mobile = (
        dataclasses.replace(reference, compression=compression, batch_size=1, mesh=MeshConfig())
        for reference in (study.server, study.mobile)
    )
    step, decoder = _phone_step(mobile), decoder_cost(Vae(model), model.strides, clip)
    return {
        "tokens": clip.tokens(Compression.parse(compression)),
        **training_flops(study, compression),
        "server_step_flops": DitStage(server).cost(1).flops,
        "mobile_step_flops": DitStage(mobile).cost(1).flops,
        "decoder_flops_per_frame": decoder_flops_per_frame(model, clip),
        "phone_step_ms": 1e3 * step,
        "phone_decoder_ms": 1e3 * decoder.seconds,
        "phone_seconds": PHONE_STEPS * step + decoder.seconds,
        "phone_decoder_mb": decoder.bytes / 1e6,
    }


def _phone_step(config: DitTraining) -> float:
    """Seconds of one pass of a transformer."""
    denoiser = Denoiser(config)
    return call_seconds(ops_of_network(denoiser.network, *jax.eval_shape(denoiser.zero_inputs)))

"""manifest.json without its packages: all constants that an app needs to call them."""

import dataclasses
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import jax.numpy as jnp
import numpy as np

from export.app.settings import app_solver
from export.part import FIRST_FUNCTION, joined
from export.phone.attention.call import FIRST, NEXT
from export.phone.steps import REUSING, step_functions, stream_functions
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.revision import git_revision, versions
from mobile_video_jax.dit.elastic import width_name
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.vae import VaeBundle
from mobile_video_jax.nn.embeddings import time_features

NAME = "manifest.json"

Described = dict[str, Any]


def function_names(clips: Sequence[ClipShape], widths: Sequence[float] = ()) -> list[str]:
    """The names of a package's functions for clips of these shapes or, of one shape, for networks of these widths."""
    names = [f"width_{width_name(width)}" for width in widths] or [f"clip_{clip}" for clip in clips]
    return names if len(names) > 1 else [FIRST_FUNCTION]


def origin(run: Run) -> Described:
    """The run that the folder was written from, its step, and the versions it was written with."""
    packages = versions() | {name: version(name) for name in ("torch", "coremltools")}
    return {"model": str(run), "step": run.step, "stage": run.stage, "commit": git_revision(), "versions": packages}


def of_vae(bundle: VaeBundle, clips: Sequence[ClipShape], widths: Sequence[float] = ()) -> Described:
    """Constants of latents and pixels: the decoder takes latents * std + mean; `pixels` are its values of 0 and 255."""
    strides = bundle.vae.config.strides
    return {
        "compression": str(strides),
        "latents": dataclasses.asdict(bundle.stats),
        "pixels": [-1.0, 1.0],
        "clips": [
            {
                "clip": str(clip),
                "function": function,
                "latent_shape": [*clip.latent(strides), strides.channels],
            }
            for clip, function in zip(clips, function_names(clips, widths), strict=True)
        ],
    }


def of_transformer(
    generators: Sequence[Generator], steps: int, *, stream: bool = False, widths: Sequence[float] = ()
) -> Described:
    """Constants of text and sampling.

    Step i adds (times[i + 1] - times[i]) * velocity to the latents or, with the solver renoise, replaces them by
    (1 - times[i + 1]) * (latents - times[i] * velocity) + times[i + 1] * fresh noise. It calls step_functions[i] of the
    transformer's packages, where there are such: then an output kept_NAME is an input past_NAME of later steps.

    A `stream` has functions of its own for the first frame and later chunks, and takes outputs kept_NAME of a last call
    at time 0 as inputs past_NAME of the next chunk. With a table of steps that is a call of its `first` or `next`; the
    steps themselves call first_steps[i] or next_steps[i]. Where there are reusing_steps, every second later chunk calls
    them in place of next_steps: what step i of the chunk before kept is past_NAME of its step i.

    With `widths` there is a clip for each, whose function computes the network of that width.
    """
    first = generators[0]
    config = first.denoiser.config
    described = of_vae(first.vae, [generator.clip for generator in generators], widths)
    for clip, width in zip(described["clips"], widths, strict=False):
        clip["width"] = width
    functions = step_functions(first.denoiser.sampling.reuse)
    for clip, generator in zip(described["clips"], generators, strict=True):
        times = generator.time_grid(generator.sample_config(steps=steps, guidance=1.0))
        features = time_features(times[:-1], config.model.time_features)
        clip |= {"times": np.asarray(times).tolist(), "time_features": np.asarray(features).tolist()}
        if stream:
            clip["stream"] = _stream(clip["function"], generator)
        elif functions:
            clip["step_functions"] = [joined(clip["function"], function) for function in functions]
    return {
        **described,
        "frame_rate": first.frame_rate,
        "text": {
            "encoder": config.text_encoder,
            "tokens": config.text_tokens,
            "width": config.text_width,
            "pad_id": 0,
            "closing_id": first.text_encoder.tokenizer.encode("").ids[-1],
            "truncation": "of more than `tokens` ids keep the first tokens - 1 and append closing_id",
        },
        "sampler": {"solver": app_solver(first.denoiser.sampling), "steps": steps, "noise_scale": 1.0, "guidance": 1.0},
    }


def _stream(function: str, generator: Generator) -> Described:
    model, table = generator.denoiser.config.transformer, generator.denoiser.sampling.reuse
    steps = stream_functions(table) if table else {}
    if steps and steps[NEXT] == steps[REUSING]:
        del steps[REUSING]
    return {
        FIRST: joined(function, FIRST),
        NEXT: joined(function, NEXT),
        **{f"{chunk}_steps": [joined(function, name) for name, _ in named] for chunk, named in steps.items()},
        "chunk_frames": model.chunk_frames,
        "renewal_features": np.asarray(time_features(jnp.zeros(1), model.time_features))[0].tolist(),
    }

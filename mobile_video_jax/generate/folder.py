"""Drawing many clips into a folder: batch by batch, resumable and shared by processes."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json, write_json
from mobile_video_jax.core.progress import Progress
from mobile_video_jax.data.video_file import write_gif, write_mp4
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request, file_names, picture
from mobile_video_jax.generate.sampling import SampleConfig
from mobile_video_jax.train.checkpoint import newest_step
from mobile_video_jax.train.run import read_run

CLAIM, SUMMARY = "inputs.json", "samples.json"
FPS = 8  # frames a second of clips that are written for a look


@dataclasses.dataclass(frozen=True)
class Job:
    """Clips to draw into the folder `out`: the runs, what is asked for, how, and as files of which speed and size."""

    run: Path
    vae: Path
    requests: Sequence[Request]
    config: SampleConfig
    out: Path
    fps: int = FPS
    scale: int = 1


def draw_folder(generator: Generator, job: Job, batch_size: int = 16) -> list[str]:
    """Draws the job's clips as NAME.mp4 and NAME.gif, and returns the names of the mp4 files.

    Clips that are there already are kept, so a stopped job goes on where it was. Processes take the requests in turn;
    samples.json is written when all clips are there. Raises UserError for bad requests and settings, and where `out`
    holds anything else.
    """
    generator.check(job.requests, job.config)
    _claim(job.out, _inputs(generator, job))
    names = [f"{name}.mp4" for name in file_names(job.requests)]
    mine = list(zip(names, job.requests, strict=True))[jax.process_index() :: jax.process_count()]
    missing = [(name, request) for name, request in mine if not (job.out / name).exists()]
    before = len(mine) - len(missing)
    progress, done = Progress("sample:", len(mine), done=before), 0
    for clips in generator.draw([request for _, request in missing], job.config, batch_size):
        for frames, (name, _) in zip(clips, missing[done:], strict=False):
            # The mp4 comes last: where it is, the clip is done.
            write_gif((job.out / name).with_suffix(".gif"), frames, job.fps, scale=job.scale)
            write_mp4(job.out / name, frames, job.fps, scale=job.scale)
        done += len(clips)
        progress.report(before + done)
    if all((job.out / name).exists() for name in names):
        write_json(job.out / SUMMARY, _summary(job, names))
    return names


def _inputs(generator: Generator, job: Job) -> dict[str, Any]:
    """All that decides what the files hold, which neither devices nor batches do."""
    return {
        "model": read_run(job.run),
        "checkpoint": newest_step(job.run),
        "vae": [read_run(job.vae), newest_step(job.vae)],
        "text_encoder": generator.text_encoder.name,
        "clip": str(generator.clip),
        **dataclasses.asdict(job.config),
        "fps": job.fps,
        "scale": job.scale,
        "list of prompts": _digest(job.requests, generator.clip),
    }


def _digest(requests: Sequence[Request], clip: ClipShape) -> str:
    """Changes when another prompt, seed or picture is asked for. Raises UserError for an image that does not decode."""
    images = {request.image for request in requests if request.image}
    pictures = {image: hashlib.sha256(picture(image, clip).tobytes()).hexdigest() for image in images}
    asked = [(request.prompt, request.seed, request.image and pictures[request.image]) for request in requests]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _claim(out: Path, inputs: dict[str, Any]) -> None:
    """Marks a new folder with its inputs, or checks that an existing one has the same."""
    out.mkdir(parents=True, exist_ok=True)
    # Read before the claim is looked for: another process may write it meanwhile. Hidden files are unfinished ones.
    occupied = any(not path.name.startswith(".") for path in out.iterdir())
    if (out / CLAIM).exists():
        before = read_json(out / CLAIM)
        for key, value in inputs.items():
            if before.get(key) != value:
                raise UserError(f"{out} holds clips drawn with another {key}: name another --out")
    elif occupied:
        raise UserError(f"{out} is not empty and holds no clips drawn by this command: name another --out")
    else:
        write_json(out / CLAIM, inputs)


def _summary(job: Job, names: Sequence[str]) -> dict[str, Any]:
    clips = []
    for name, request in zip(names, job.requests, strict=True):
        image = {"image": str(request.image)} if request.image else {}
        clips.append({"file": name, "prompt": request.prompt, "seed": request.seed, **image})
    return {"model": str(job.run), "sampling": dataclasses.asdict(job.config), "clips": clips}

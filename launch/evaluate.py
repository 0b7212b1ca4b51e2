"""Judges a run on clips it has not seen: python -m launch.evaluate --model=RUN --data=DIR --out=DIR [--json]

DIR is a prepared video data set. Writes report.html, report.json (each score with its 95 % interval) and scores.json
(clip by clip).

A VAE's run: PSNR, SSIM, flicker, the latents' spectrum and the flat-colour lattice of decoded clips; --lpips and --fvd
add to them. Clips of any length and size: --chunk codes so many latent frames at a time, --tile cuts frames into tiles.

A transformer's run: draws a clip for the caption of each held-out clip, as launch.sample does, and measures motion,
flicker, diversity, Fréchet and kernel video distance and, in the shape world, whether clips show what is asked, beside
the same of the real clips. With --image clips start from the real ones' first frames. A stopped command goes on.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags

from launch import sampling_flags
from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.lock import only_writer
from mobile_video_jax.core.storage import local_path
from mobile_video_jax.data.cache import data_folder
from mobile_video_jax.evaluate.evaluation import PAGE
from mobile_video_jax.evaluate.generation import GenerationTask, evaluate_generation
from mobile_video_jax.evaluate.score_table import score_table
from mobile_video_jax.evaluate.vae import VaeTask, evaluate_vae
from mobile_video_jax.generate.prompts import SEEDS
from mobile_video_jax.models.run import Run

MODEL = flags.DEFINE_string("model", None, "The run directory of a VAE or a transformer.", required=True)
DATA = flags.DEFINE_string("data", None, "A prepared video data set.", required=True)
OUT = flags.DEFINE_string("out", None, "The folder of the report.", required=True)
CLIP = flags.DEFINE_string("clip", "", "Frames x height x width of the clips; the run's own if empty.")
SPLIT = flags.DEFINE_string("split", "test", "validation or test.")
CLIPS = flags.DEFINE_integer("clips", 64, "How many clips at most.", lower_bound=1)
FVD = flags.DEFINE_bool(
    "fvd", None, "Fréchet and kernel video distance; for transformers, where possible if not given."
)
JSON = flags.DEFINE_bool("json", False, "Print JSON alone.")

ROWS = flags.DEFINE_integer("rows", 1, "VAE: devices that share each clip, cut by rows.", lower_bound=1)
LPIPS = flags.DEFINE_string("lpips", "", "VAE: measures LPIPS with torchvision's weights, vgg:FILE or alex:FILE.")

IMAGE = flags.DEFINE_bool("image", False, "Clips start from the real ones' first frames.")
DIVERSITY = flags.DEFINE_integer("diversity_prompts", 4, "Captions that are drawn 4 times.", lower_bound=0)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the first clip's noise; each clip has the next.", 0, SEEDS - 1)

OF_VAES = (ROWS, LPIPS)
OF_TRANSFORMERS = (
    *(IMAGE, DIVERSITY, SEED, sampling_flags.VAE, sampling_flags.STEPS, sampling_flags.GUIDANCE, sampling_flags.LOW),
    *(sampling_flags.HIGH, sampling_flags.RESCALE, sampling_flags.NEGATIVE, sampling_flags.SHIFT),
    *(sampling_flags.SOLVER, sampling_flags.BATCH_SIZE, sampling_flags.FSDP, sampling_flags.TEXT_ENCODER),
)

flags.adopt_module_key_flags(sampling_flags)


def main() -> None:
    out = local_path(OUT.value)
    with only_writer(out):
        report = _evaluate(Run.open(MODEL.value), data_folder(DATA.value), out)
    if JSON.value:
        print(json.dumps(report))
        return
    print("\n".join([score_table(report).as_text(), *report["protocol"]["notes"]]))
    cli.finish(Path(OUT.value) / PAGE, report)


def _evaluate(run: Run, data: Path, out: Path) -> dict[str, Any]:
    if run.stage != "vae":
        _check_unused(OF_VAES, "VAEs")
        return evaluate_generation(_generation_task(run, data, out))
    _check_unused(OF_TRANSFORMERS, "transformers")
    pieces = (sampling_flags.CHUNK.value, sampling_flags.TILE.value, sampling_flags.OVERLAP.value)
    task = VaeTask(
        *(run, data, out, CLIP.value, SPLIT.value, CLIPS.value, *pieces, ROWS.value),
        *(bool(FVD.value), LPIPS.value),
    )
    return evaluate_vae(task)


def _generation_task(run: Run, data: Path, out: Path) -> GenerationTask:
    return GenerationTask(
        *(run, data, out, sampling_flags.sampling()),
        *(SPLIT.value, CLIPS.value, SEED.value),
        *(IMAGE.value, DIVERSITY.value, FVD.value),
        vae=sampling_flags.vae(),
        text_encoder=sampling_flags.TEXT_ENCODER.value,
        clip=CLIP.value,
        fsdp=sampling_flags.FSDP.value,
        batch_size=sampling_flags.BATCH_SIZE.value,
    )


def _check_unused(holders: tuple[flags.FlagHolder, ...], what: str) -> None:
    for holder in holders:
        if holder.present:
            raise UserError(f"--{holder.name} is for {what}, and {MODEL.value} is none: leave it out")


if __name__ == "__main__":
    cli.run(main)

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

from launch import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.evaluate import PAGE, as_text, score_table
from mobile_video_jax.stages.evaluate_generation import GenerationTask, evaluate_generation
from mobile_video_jax.stages.evaluate_vae import VaeTask, evaluate_vae
from mobile_video_jax.stages.prompts import SEEDS
from mobile_video_jax.stages.sampling import SampleConfig
from mobile_video_jax.train.run import read_run

MODEL = flags.DEFINE_string("model", None, "The run directory of a VAE or a transformer.", required=True)
DATA = flags.DEFINE_string("data", None, "A prepared video data set.", required=True)
OUT = flags.DEFINE_string("out", None, "The folder of the report.", required=True)
CLIP = flags.DEFINE_string("clip", "", "Frames x height x width of the clips; the run's own if empty.")
SPLIT = flags.DEFINE_string("split", "test", "validation or test.")
CLIPS = flags.DEFINE_integer("clips", 64, "How many clips at most.", lower_bound=1)
FVD = flags.DEFINE_bool(
    "fvd", None, "Fréchet and kernel video distance; for transformers, where possible if not given."
)
CHUNK = flags.DEFINE_integer("chunk", 0, "Latent frames coded at a time; 0 codes a clip in one pass.", lower_bound=0)
TILE = flags.DEFINE_integer("tile", 0, "Pixels a side of a tile; 0 codes whole frames.", lower_bound=0)
OVERLAP = flags.DEFINE_integer("overlap", 0, "Pixels that neighbouring tiles share.", lower_bound=0)
JSON = flags.DEFINE_bool("json", False, "Print JSON alone.")

ROWS = flags.DEFINE_integer("rows", 1, "VAE: devices that share each clip, cut by rows.", lower_bound=1)
LPIPS = flags.DEFINE_string("lpips", "", "VAE: measures LPIPS with torchvision's weights, vgg:FILE or alex:FILE.")

VAE = flags.DEFINE_string("vae", None, "A VAE run whose decoder is used instead, such as a smaller one for phones.")
IMAGE = flags.DEFINE_bool("image", False, "Clips start from the real ones' first frames.")
DIVERSITY = flags.DEFINE_integer("diversity_prompts", 4, "Captions that are drawn 4 times.", lower_bound=0)
STEPS = flags.DEFINE_integer("steps", 40, "Solver steps.")
GUIDANCE = flags.DEFINE_float("guidance", 5.0, "Guidance scale; 1 is none and costs half.")
LOW = flags.DEFINE_float("guidance_low", 0.0, "The least time (0 is data) at which guidance acts.")
HIGH = flags.DEFINE_float("guidance_high", 1.0, "The greatest time (1 is noise) at which guidance acts.")
RESCALE = flags.DEFINE_float("guidance_rescale", 0.0, "0..1; above 0 takes back the contrast that guidance adds.")
NEGATIVE = flags.DEFINE_string("negative_prompt", "", "What not to show; it takes the place of the empty caption.")
SHIFT = flags.DEFINE_float("shift", None, "Time shift; above 1 spends more steps on noise; as trained if not given.")
SOLVER = flags.DEFINE_string("solver", "euler", "euler; heun: second order, two passes a step; dpmpp_2m: one.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the first clip's noise; each clip has the next.", 0, SEEDS - 1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Clips drawn at once, rounded up to whole devices.", lower_bound=1)
FSDP = flags.DEFINE_integer("fsdp", 1, "Devices that share one copy of the transformer's weights.", lower_bound=1)
TEXT_ENCODER = flags.DEFINE_string("text_encoder", "", "Where the run's text encoder lies: clip:FOLDER or t5:FOLDER.")

OF_VAES = (ROWS, LPIPS)
OF_TRANSFORMERS = (
    *(VAE, IMAGE, DIVERSITY, STEPS, GUIDANCE, LOW, HIGH, RESCALE, NEGATIVE),
    *(SHIFT, SOLVER, SEED, BATCH_SIZE, FSDP, TEXT_ENCODER),
)


def main() -> None:
    report = _evaluate(Path(MODEL.value), Path(DATA.value), Path(OUT.value))
    if JSON.value:
        print(json.dumps(report))
        return
    print("\n".join([as_text(score_table(report)), *report["protocol"]["notes"]]))
    cli.finish(Path(OUT.value) / PAGE, report)


def _evaluate(run: Path, data: Path, out: Path) -> dict[str, Any]:
    match read_run(run)["stage"]:
        case "vae":
            _check_unused(OF_TRANSFORMERS, "transformers")
            coding = (CHUNK.value, TILE.value, OVERLAP.value, ROWS.value)
            task = VaeTask(run, data, out, CLIP.value, SPLIT.value, CLIPS.value, *coding, bool(FVD.value), LPIPS.value)
            return evaluate_vae(task)
        case "dit":
            _check_unused(OF_VAES, "VAEs")
            return evaluate_generation(_generation_task(run, data, out))
        case stage:
            raise UserError(f"{run} is of the stage '{stage}', which has no evaluation: name a VAE or a transformer")


def _generation_task(run: Path, data: Path, out: Path) -> GenerationTask:
    sampling = SampleConfig(
        steps=STEPS.value,
        guidance=GUIDANCE.value,
        solver=SOLVER.value,
        chunk=CHUNK.value,
        tile=TILE.value,
        overlap=OVERLAP.value,
        negative_prompt=NEGATIVE.value,
        guidance_low=LOW.value,
        guidance_high=HIGH.value,
        guidance_rescale=RESCALE.value,
    )
    return GenerationTask(
        *(run, data, out, sampling, SHIFT.value, SPLIT.value, CLIPS.value, SEED.value),
        *(IMAGE.value, DIVERSITY.value, FVD.value),
        vae=Path(VAE.value) if VAE.value else None,
        text_encoder=TEXT_ENCODER.value,
        clip=CLIP.value,
        fsdp=FSDP.value,
        batch_size=BATCH_SIZE.value,
    )


def _check_unused(holders: tuple[flags.FlagHolder, ...], what: str) -> None:
    for holder in holders:
        if holder.present:
            raise UserError(f"--{holder.name} is for {what}, and {MODEL.value} is none: leave it out")


if __name__ == "__main__":
    cli.run(main)

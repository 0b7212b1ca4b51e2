"""Evaluates a run on clips it has not seen: python -m launch.evaluate --model=RUN --data=DIR --out=DIR [--json]

DIR is a prepared video data set. Writes report.html, report.json (each score with its 95 % interval) and scores.json
(clip by clip).

A VAE's run: PSNR, SSIM, flicker, the latents' spectrum and the flat-colour lattice of decoded clips; --lpips and --fvd
add to them. Clips of any length and size: --chunk codes so many latent frames at a time, --tile splits frames in tiles.

A transformer's run: generates a clip for the caption of each held-out clip, as launch.sample does, and measures motion,
flicker, diversity, Fréchet and kernel video distance and, in the shape world, whether clips show what is asked, beside
the same of the real clips. With --image clips start from the real ones' first frames. A stopped command resumes.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from launch import sampling_flags
from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Count, CountOrZero, Seed, Size

if TYPE_CHECKING:
    from mobile_video_jax.models.run import Run

MODEL = cli.require_path("model", "The run directory of a VAE or a transformer.", exists=True)
DATA = cli.require_path("data", "A prepared video data set.")
OUT = cli.require_path("out", "The folder of the report.", local=True)
CLIP = cli.define_clip("clip", "", "Frames x height x width of the clips; the run's own if empty.")
SPLIT = flags.DEFINE_string("split", "test", "validation or test.")
CLIPS = cli.define_number("clips", 64, Count, "Clips at most.")
FVD = flags.DEFINE_bool("fvd", None, "Fréchet and kernel video distance; of transformers, where possible without it.")
JSON = flags.DEFINE_bool("json", False, "Print JSON alone.")

ROWS = cli.define_number("rows", 1, Size, "VAE: devices that share each clip, split by rows.")
LPIPS = cli.define_located("lpips", "", "VAE: measures LPIPS with torchvision's weights, vgg:FILE or alex:FILE.")

IMAGE = flags.DEFINE_bool("image", False, "Clips start from the real ones' first frames.")
DIVERSITY = cli.define_number("diversity_prompts", 4, CountOrZero, "Captions that get 4 clips each.")
SEED = cli.define_number("seed", 0, Seed, "Seed of the first clip's noise; each clip has the next.")

OF_VAES: tuple[flags.FlagHolder[Any], ...] = (ROWS, LPIPS)
OF_TRANSFORMERS: tuple[flags.FlagHolder[Any], ...] = (
    IMAGE,
    DIVERSITY,
    SEED,
    sampling_flags.VAE,
    sampling_flags.STEPS,
    sampling_flags.GUIDANCE,
    sampling_flags.LOW,
    sampling_flags.HIGH,
    sampling_flags.RESCALE,
    sampling_flags.NEGATIVE,
    sampling_flags.SHIFT,
    sampling_flags.SOLVER,
    sampling_flags.BATCH_SIZE,
    sampling_flags.FSDP,
    sampling_flags.TEXT_ENCODER,
)

flags.adopt_module_key_flags(sampling_flags)


def main() -> None:
    from mobile_video_jax.core.lock import only_writer
    from mobile_video_jax.data.location import data_folder
    from mobile_video_jax.evaluate.evaluation import PAGE
    from mobile_video_jax.evaluate.score_table import score_table
    from mobile_video_jax.models.run import Run

    out = OUT.value
    with only_writer(out):
        run = Run.open(MODEL.value, **sampling_flags.CHECKPOINT.value)
        report = _evaluate(run, data_folder(str(DATA.value)), out)
    if JSON.value:
        print(json.dumps(report))
        return
    print("\n".join([score_table(report).as_text(), *report["protocol"]["notes"]]))
    cli.finish(out / PAGE, report)


def _evaluate(run: "Run", data: Path, out: Path) -> dict[str, Any]:
    if run.stage == "vae":
        _check_unused(OF_TRANSFORMERS, "transformers")
        return _evaluate_vae(run, data, out)
    _check_unused(OF_VAES, "VAEs")
    return _evaluate_transformer(run, data, out)


def _evaluate_vae(run: "Run", data: Path, out: Path) -> dict[str, Any]:
    from mobile_video_jax.evaluate.vae import VaeTask, evaluate_vae

    task = VaeTask(
        run=run,
        data=data,
        out=out,
        clip=CLIP.value,
        split=SPLIT.value,
        count=CLIPS.value,
        chunk=sampling_flags.CHUNK.value,
        tile=sampling_flags.TILE.value,
        overlap=sampling_flags.OVERLAP.value,
        rows=ROWS.value,
        fvd=bool(FVD.value),
        lpips=LPIPS.value,
    )
    return evaluate_vae(task)


def _evaluate_transformer(run: "Run", data: Path, out: Path) -> dict[str, Any]:
    from mobile_video_jax.evaluate.generation import GenerationTask, evaluate_generation

    task = GenerationTask(
        run=run,
        data=data,
        out=out,
        sampling=sampling_flags.sampling(images=IMAGE.value),
        split=SPLIT.value,
        count=CLIPS.value,
        seed=SEED.value,
        image=IMAGE.value,
        diversity_prompts=DIVERSITY.value,
        fvd=FVD.value,
        vae=sampling_flags.vae(),
        text_encoder=sampling_flags.TEXT_ENCODER.value,
        clip=CLIP.value,
        fsdp=sampling_flags.FSDP.value,
        batch_size=sampling_flags.BATCH_SIZE.value,
    )
    return evaluate_generation(task)


def _check_unused(holders: tuple[flags.FlagHolder[Any], ...], what: str) -> None:
    for holder in holders:
        if holder.present:
            raise UserError(f"--{holder.name} is for {what}, and {MODEL.value} is none: leave it out")


if __name__ == "__main__":
    cli.run(main)

"""Generates clips for VBench and reads its results.

VBench is a benchmark of text-to-video models (arXiv 2311.17982, github.com/Vchitect/VBench). Its networks and its
prompts are yours to fetch and run.

python -m launch.vbench --model=RUN --prompts=FILE --out=DIR [--samples=5]
  Generates clips for its prompts, prompts/all_dimension.txt or VBench_full_info.json, as DIR/videos/PROMPT-0.mp4
  to PROMPT-4.mp4. Started again it resumes. Then `vbench evaluate --videos_path DIR/videos --dimension NAME` for each
  dimension; clips of five seconds and more are for VBench-Long. For temporal_flickering VBench wants --samples=25 of
  prompts_per_dimension/temporal_flickering.txt, of which its static_filter.py chooses.

python -m launch.vbench --results=FOLDER_OR_FILE --out=DIR [--json]
  Reads VBench's *_eval_results.json: dimensions, normalised as on its leaderboard, and the quality, semantic and total
  scores, as report.html and report.json. launch.compare compares such folders.
"""

import json
from pathlib import Path

from absl import flags

from launch import sampling_flags
from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Count, PlaybackRate, Seed

MODEL = cli.define_path("model", "To generate clips: the transformer's run directory.", exists=True)
RESULTS = cli.define_path("results", "To read results: VBench's output folder, or one *_eval_results.json.", local=True)
OUT = cli.require_path("out", "The folder for the clips or the report.", local=True)
PROMPTS = cli.define_path("prompts", "With --model: VBench's list of prompts, FILE.txt or FILE.json.", local=True)
SAMPLES = cli.define_number("samples", 5, Count, "Clips a prompt.")
CLIP = cli.define_clip("clip", "", "Frames x height x width of the clips; the run's own if empty.")
SEED = cli.define_number("seed", 0, Seed, "Seed of the first clip's noise; each clip has the next.")
FPS: flags.FlagHolder[float | None] = cli.define_number(
    "fps", None, PlaybackRate, "Frames a second of the clips; the run's own if not given, or 8."
)
JSON = flags.DEFINE_bool("json", False, "With --results: print JSON alone.")

flags.adopt_module_key_flags(sampling_flags)


def main() -> None:
    match MODEL.value, RESULTS.value:
        case Path() as model, None:
            _generate(model, OUT.value)
        case None, Path() as results:
            _read(results, OUT.value)
        case _:
            raise UserError("generate clips with --model=RUN --prompts=FILE, or read results with --results=FOLDER")


def _read(results: Path, out: Path) -> None:
    from mobile_video_jax.evaluate.evaluation import PAGE
    from mobile_video_jax.evaluate.vbench import write_results

    numbers = write_results(results, out)
    if JSON.value:
        print(json.dumps(numbers))
        return
    for name, metric in numbers["metrics"].items():
        scale = f"   normalised {numbers['normalised'][name]:7.2%}" if name in numbers["normalised"] else ""
        print(f"{name.replace('_', ' '):24}{metric['value']:8.2%}{scale}")
    cli.finish(out / PAGE, numbers)


def _generate(run: Path, out: Path) -> None:
    if PROMPTS.value is None:
        raise UserError("--prompts is missing: name VBench's prompts/all_dimension.txt or another of its lists")
    from mobile_video_jax.core.lock import only_writer
    from mobile_video_jax.evaluate.vbench import GENERATED, VIDEOS, generate_videos, vbench_requests
    from mobile_video_jax.generate.folder import GenerationJob
    from mobile_video_jax.generate.generator import Generator

    requests = vbench_requests(PROMPTS.value, SAMPLES.value, SEED.value)
    generator = Generator.load(
        run,
        sampling_flags.vae(),
        sampling_flags.TEXT_ENCODER.value,
        clip=CLIP.value,
        fsdp=sampling_flags.FSDP.value,
        fps=FPS.value,
        **sampling_flags.CHECKPOINT.value,
    )
    config = generator.sample_config(**sampling_flags.sampling())
    job = GenerationJob(requests, config, out / GENERATED, generator.frame_rate)
    with only_writer(out):
        videos = generate_videos(generator, job, SAMPLES.value, sampling_flags.BATCH_SIZE.value)
    cli.finish(out / VIDEOS, {"out": str(out), "videos": len(videos), "samples": SAMPLES.value})


if __name__ == "__main__":
    cli.run(main)

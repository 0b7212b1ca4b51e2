"""The exchange with VBench, a benchmark of text-to-video models (arXiv 2311.17982, github.com/Vchitect/VBench).

VBench itself, its networks and its prompts are yours to fetch and run; this draws its clips and reads its results.

python -m launch.vbench --model=RUN --prompts=FILE --out=DIR [--samples=5]
  Draws clips for VBench's prompts, its prompts/all_dimension.txt or VBench_full_info.json, as DIR/videos/PROMPT-0.mp4
  to PROMPT-4.mp4. Started again it goes on. Then `vbench evaluate --videos_path DIR/videos --dimension NAME` for each
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
from mobile_video_jax.core.lock import only_writer
from mobile_video_jax.evaluate.evaluation import PAGE
from mobile_video_jax.evaluate.vbench import GENERATED, VIDEOS, generate_videos, vbench_requests, write_results
from mobile_video_jax.generate.folder import GenerationJob
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import SEEDS

MODEL = flags.DEFINE_string("model", None, "To draw clips: the transformer's run directory.")
RESULTS = flags.DEFINE_string("results", None, "To read results: VBench's output folder, or one *_eval_results.json.")
OUT = flags.DEFINE_string("out", None, "The folder for the clips or the report.", required=True)
PROMPTS = flags.DEFINE_string("prompts", None, "With --model: VBench's list of prompts, FILE.txt or FILE.json.")
SAMPLES = flags.DEFINE_integer("samples", 5, "Clips a prompt.", lower_bound=1)
CLIP = flags.DEFINE_string("clip", "", "Frames x height x width of the clips; the run's own if empty.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the first clip's noise; each clip has the next.", 0, SEEDS - 1)
FPS = flags.DEFINE_float("fps", None, "Frames a second of the files; the run's own if not given, or 8.", lower_bound=1)
JSON = flags.DEFINE_bool("json", False, "With --results: print JSON alone.")

flags.adopt_module_key_flags(sampling_flags)


def main() -> None:
    match MODEL.value, RESULTS.value:
        case str(model), None:
            _draw(Path(model), Path(OUT.value))
        case None, str(results):
            _read(Path(results), Path(OUT.value))
        case _:
            raise UserError("draw clips with --model=RUN --prompts=FILE, or read results with --results=FOLDER")


def _read(results: Path, out: Path) -> None:
    numbers = write_results(results, out)
    if JSON.value:
        print(json.dumps(numbers))
        return
    for name, metric in numbers["metrics"].items():
        scale = f"   normalised {numbers['normalised'][name]:7.2%}" if name in numbers["normalised"] else ""
        print(f"{name.replace('_', ' '):24}{metric['value']:8.2%}{scale}")
    cli.finish(out / PAGE, numbers)


def _draw(run: Path, out: Path) -> None:
    if not PROMPTS.value:
        raise UserError("--prompts is missing: name VBench's prompts/all_dimension.txt or another of its lists")
    requests = vbench_requests(Path(PROMPTS.value), SAMPLES.value, SEED.value)
    generator = Generator.load(
        run, sampling_flags.vae(), sampling_flags.TEXT_ENCODER.value, clip=CLIP.value, fsdp=sampling_flags.FSDP.value
    )
    config = generator.sample_config(**sampling_flags.sampling())
    job = GenerationJob(requests, config, out / GENERATED, FPS.value or generator.frame_rate)
    with only_writer(out):
        videos = generate_videos(generator, job, SAMPLES.value, sampling_flags.BATCH_SIZE.value)
    cli.finish(out / VIDEOS, {"out": str(out), "videos": len(videos), "samples": SAMPLES.value})


if __name__ == "__main__":
    cli.run(main)

"""Exchange with VBench (arXiv 2311.17982): the clips that it evaluates, and a page of its scores."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

from mobile_video_jax.core.claim import check_holds_only
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing, write_json
from mobile_video_jax.core.revision import git_revision
from mobile_video_jax.evaluate.evaluation import PAGE, REPORT, SCORES
from mobile_video_jax.generate.folder import GenerationJob, generate_folder
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import Request, read_requests
from mobile_video_jax.metrics.interval import Score
from mobile_video_jax.metrics.vbench import DIMENSIONS, QUALITY, Result, normalised, prompt_of, read_results, totals
from mobile_video_jax.report.blocks import Report, Section, Table
from mobile_video_jax.report.page import write_report

GENERATED, VIDEOS = "drawn", "videos"
LONGEST_NAME = 255  # bytes, on all common file systems


def vbench_requests(prompts: Path, samples: int, seed: int) -> list[Request]:
    """`samples` clips of each prompt of VBench's suite, the i-th clip of all with seed + i.

    `prompts` is one of its lists (.txt) or VBench_full_info.json; a prompt listed twice counts once. Raises UserError
    for damaged files, and for prompts that cannot be the name of a file.
    """
    texts = _full_info(prompts) if prompts.suffix == ".json" else [one.prompt for one in read_requests(prompts, 0, [])]
    unique = list(dict.fromkeys(texts))
    for text in unique:
        if {"/", "\0"} & set(text) or len(video_name(text, samples).encode()) > LONGEST_NAME:
            # VBench looks for the prompt as it is and replaces nothing, and its suite needs no more than this.
            raise UserError(f"the prompt {text[:60]!r} cannot name a file, as VBench wants: it is none of VBench's own")
    return [Request(text, seed + i * samples + j) for i, text in enumerate(unique) for j in range(samples)]


def video_name(prompt: str, index: int) -> str:
    """The name under which VBench looks for a clip."""
    return f"{prompt}-{index}.mp4"


def generate_videos(generator: Generator, job: GenerationJob, samples: int, batch_size: int) -> list[Path]:
    """Writes the job's clips, `samples` of each prompt in turn, as OUT/videos/PROMPT-INDEX.mp4; returns the files.

    VBench takes the extension of whichever file it lists first for that of all, so that nothing else lies there: the
    generated clips, their seeds and what makes the job resumable are in OUT/drawn.
    """
    names = generate_folder(generator, job, batch_size)
    (job.out.parent / VIDEOS).mkdir(exist_ok=True)
    videos = []
    for i, (name, request) in enumerate(zip(names, job.requests, strict=True)):
        video = job.out.parent / VIDEOS / video_name(request.prompt, i % samples)
        # Where several processes generate, each has its own share.
        if (job.out / name).exists() and not video.exists():
            _link(job.out / name, video)
        videos.append(video)
    return videos


def write_results(path: Path, out: Path) -> dict[str, Any]:
    """Writes report.html, report.json and scores.json of VBench's results, as evaluations of ours have."""
    results = read_results(path)
    check_holds_only(out, (REPORT, SCORES, PAGE, GENERATED, VIDEOS), "results of VBench")
    results = {name: results[name] for name in DIMENSIONS if name in results}
    scores, per_video = {name: result.score for name, result in results.items()}, _per_video(results)
    intervals = {name: result.with_interval() for name, result in results.items()}
    count = len(per_video["clips"])
    intervals |= {name: Score(value, None, None, count) for name, value in totals(scores).items()}
    metrics = {name: dataclasses.asdict(score) for name, score in intervals.items()}
    protocol = {"results": str(path), "commit": git_revision()}
    numbers = {"stage": "vbench", "metrics": metrics, "normalised": normalised(scores), "protocol": protocol}
    write_json(out / REPORT, numbers)
    write_json(out / SCORES, per_video)
    write_report(out / PAGE, _page(numbers))
    return numbers


def _full_info(path: Path) -> list[str]:
    try:
        return [str(entry["prompt_en"]) for entry in json.loads(path.read_text())]
    except OSError as error:
        raise UserError(f"the list of prompts {path} does not open: {error.strerror}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no VBench_full_info.json ({error!r}): name that or one of its .txt lists") from None


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # buckets and some disks know no links
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)


def _per_video(results: dict[str, Result]) -> dict[str, Any]:
    videos = list(dict.fromkeys(video for result in results.values() for video in result.videos))
    return {
        "clips": videos,
        "prompts": [prompt_of(video) for video in videos],
        "scores": {name: [result.videos.get(video) for video in videos] for name, result in results.items()},
    }


def _page(numbers: dict[str, Any]) -> Report:
    metrics, there = numbers["metrics"], [name for name in DIMENSIONS if name in numbers["metrics"]]
    text = "Weighted means of the normalised scores; total = (4 quality + semantic) / 5."
    if missing := [_shown(name) for name in DIMENSIONS if name not in metrics]:
        text += f"\nMissing, and with them the totals that they belong to: {', '.join(missing)}."
    sums = [[name, _percent(metrics[name]["value"])] for name in ("quality", "semantic", "total") if name in metrics]
    columns = ["dimension", "group", "score (%)", "95 % interval", "normalised (%)", "weight", "videos"]
    rows = [_row(name, metrics[name], numbers["normalised"][name]) for name in there]
    intervals = "Intervals are over prompts; the videos of one prompt count as one."
    sections = [
        Section("Totals", text, [Table(["score", "%"], sums)] if sums else []),
        Section("Dimensions", intervals, [Table(columns, rows)]),
    ]
    facts = {"dimensions": f"{len(there)} of {len(DIMENSIONS)}", **numbers["protocol"]}
    return Report("VBench", "Scores by VBench (arXiv 2311.17982), normalised and combined as it does.", facts, sections)


def _row(name: str, metric: dict[str, Any], scaled: float) -> list[str | int]:
    group, weight = "quality" if name in QUALITY else "semantic", f"{DIMENSIONS[name].weight:g}"
    interval = "–" if metric["low"] is None else f"{_percent(metric['low'])} to {_percent(metric['high'])}"
    return [_shown(name), group, _percent(metric["value"]), interval, _percent(scaled), weight, metric["n"]]


def _shown(name: str) -> str:
    return name.replace("_", " ")


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"

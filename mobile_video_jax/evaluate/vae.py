"""Evaluating a VAE: how close decoded held-out clips are to the real ones."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.claim import claim
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.evaluate.folder import write_clips
from mobile_video_jax.evaluate.protocol import (
    CLAIM,
    PAGE,
    Evaluation,
    check_held_out,
    data_facts,
    facts,
    run_facts,
    score_table,
    write_evaluation,
)
from mobile_video_jax.evaluate.reconstruction import Code, Judgement, judge, over_devices, pieces
from mobile_video_jax.evaluate.reconstruction_report import judgement_blocks, worst_clips
from mobile_video_jax.generate.clips import FRAME_RATE
from mobile_video_jax.metrics.clip_scorer import watched
from mobile_video_jax.metrics.interval import Score
from mobile_video_jax.metrics.lpips import Net, load_lpips, lpips
from mobile_video_jax.metrics.video_distance import SETTINGS, FeatureCache, obstacle, video_distances
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.vae import VaeBundle
from mobile_video_jax.report.blocks import Report, Section
from mobile_video_jax.report.page import write_report


@dataclasses.dataclass(frozen=True)
class VaeTask:
    """A VAE run, up to `count` clips of a held-out split to judge it on, and how: `clip` is the training clip if empty.

    `rows` devices share each clip. With `chunk` or `tile` clips are coded in pieces. `fvd` asks for Fréchet and kernel
    video distance, `lpips`, as "vgg:FILE", for LPIPS with the classifier in the file.
    """

    run: Run
    data: Path
    out: Path
    clip: str = ""
    split: str = "test"
    count: int = 64
    chunk: int = 0
    tile: int = 0
    overlap: int = 0
    rows: int = 1
    fvd: bool = False
    lpips: str = ""


def evaluate_vae(task: VaeTask) -> dict[str, Any]:
    """Writes report.json, scores.json and report.html into `out`, and returns the content of the first.

    With tiles, `seam` tells how far they are from the whole frame: the largest and the mean difference of decoded
    pixels, in grey levels. Raises UserError for settings that do not work, missing weights and too few clips.
    """
    check_held_out(task.split)
    described, bundle = task.run.record["description"], task.run.vae()
    shape = ClipShape.parse(task.clip or described["clip"]).check(bundle.vae.config.strides)
    code = _code(task, bundle, shape)
    settings = _settings(task, shape)
    if task.fvd and (reason := obstacle(shape, settings["clips"])):
        raise UserError(reason)
    net = _Lpips.parse(task.lpips) if task.lpips else None
    settings["metrics"] = (SETTINGS if task.fvd else {}) | ({"lpips": net.name} if net else {})
    claim(task.out, CLAIM, settings, "evaluation")
    judgement = judge(bundle, task.data, task.split, shape, task.count, code)
    if net:
        values = net(judgement.clips, judgement.decoded)
        judgement = dataclasses.replace(judgement, per_clip={**judgement.per_clip, "lpips": values})
    more = {**judgement.curves(), "compression": described["compression"]}
    if task.tile:
        whole = judge(bundle, task.data, task.split, shape, task.count, pieces(bundle, task.chunk, 0, 0))
        more["seam"] = _seam(whole.decoded, judgement.decoded)
    metrics = judgement.scores | (_distances(task.out, judgement) if task.fvd else {})
    names = write_clips(task.out, judgement.prompts, judgement.decoded)
    evaluation = Evaluation("vae", settings, names, judgement.prompts, metrics, judgement.per_clip, more=more)
    report = write_evaluation(task.out, evaluation)
    write_report(task.out / PAGE, _page(task, report, judgement))
    return report


@dataclasses.dataclass(frozen=True)
class _Lpips:
    """LPIPS of one net, and a name for its weights."""

    net: Net
    params: Any
    name: str

    @classmethod
    def parse(cls, text: str) -> "_Lpips":
        """Reads "vgg:FILE". Raises UserError for another form and where weights are missing."""
        net, _, file = text.partition(":")
        if net not in get_args(Net) or not file:
            raise UserError(f"--lpips={text} is not of the form {':FILE or '.join(get_args(Net))}:FILE")
        params = load_lpips(cast(Net, net), Path(file))
        return cls(cast(Net, net), params, f"{net}, sha256 {hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]}")

    def __call__(self, reference: Clips, video: Clips) -> np.ndarray:
        return lpips(self.net, self.params, reference, video)


def _code(task: VaeTask, bundle: VaeBundle, shape: ClipShape) -> Code | None:
    in_pieces = task.chunk or task.tile
    if task.rows > 1 and in_pieces:
        raise UserError("a clip is coded in pieces or over devices, not both: leave out --rows, or --chunk and --tile")
    if task.rows > 1:
        return over_devices(bundle, shape, task.rows)
    return pieces(bundle, task.chunk, task.tile, task.overlap) if in_pieces else None


def _settings(task: VaeTask, shape: ClipShape) -> dict[str, Any]:
    data = data_facts(task.data, task.split, task.count)
    coding = {name: getattr(task, name) for name in ("rows", "chunk", "tile", "overlap")}
    return {"run": str(task.run), **run_facts(task.run), **data, "clip": str(shape), **coding}


def _distances(out: Path, judgement: Judgement) -> dict[str, Score]:
    cache, count = FeatureCache(out / "features"), len(judgement.clips)
    sets = {"features of decoded clips:": judgement.decoded, "features of real clips:": judgement.clips}
    decoded, real = (np.stack([cache(frames) for frames in watched(name, sets[name], count)]) for name in sets)
    return video_distances(decoded, real, paired=True)


def _seam(whole: Clips, tiled: Clips) -> dict[str, float]:
    difference = np.abs(whole.astype(np.float32) - tiled)
    return {"max": float(difference.max()), "mean": float(difference.mean())}


def _page(task: VaeTask, report: dict[str, Any], judgement: Judgement) -> Report:
    compression = report["compression"]
    lead = f"A VAE of {compression} on {len(judgement.clips)} clips that it was not trained on."
    blocks = [
        score_table(report),
        *judgement_blocks({task.data.name: judgement}, FRAME_RATE),
        worst_clips(judgement, FRAME_RATE),
    ]
    shown = facts({"compression": compression, **report["protocol"]})
    return Report(f"Evaluation of {task.run.path.name}", lead, shown, [Section("Scores", "", blocks)])

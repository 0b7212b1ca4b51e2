"""Evaluation of a VAE: closeness of decoded held-out clips to the real ones."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.claim import claim
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import tracked
from mobile_video_jax.core.storage import local_path
from mobile_video_jax.data.dataset import read_manifest
from mobile_video_jax.evaluate.evaluation import (
    CLAIM,
    FEATURES,
    PAGE,
    Evaluation,
    check_held_out,
    data_facts,
    run_facts,
    write_clips,
    write_evaluation,
)
from mobile_video_jax.evaluate.reconstruction import (
    Coder,
    Reconstruction,
    coder_in_pieces,
    coder_over_devices,
    reconstruct,
)
from mobile_video_jax.evaluate.reconstruction_report import reconstruction_blocks, worst_clips
from mobile_video_jax.evaluate.score_table import protocol_facts, score_table
from mobile_video_jax.generate.clips import FRAME_RATE
from mobile_video_jax.metrics.interval import Score
from mobile_video_jax.metrics.lpips import LPIPS, Net, load_lpips, lpips
from mobile_video_jax.metrics.metric import Metric
from mobile_video_jax.metrics.video_distance import SETTINGS, FeatureCache, obstacle, video_distances
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.vae import VaeBundle
from mobile_video_jax.report.blocks import Report, Section
from mobile_video_jax.report.page import write_report


@dataclasses.dataclass(frozen=True)
class VaeTask:
    """A VAE run to evaluate, on up to `count` clips of a held-out split."""

    run: Run
    data: Path  # prepared video data set
    out: Path
    clip: str = ""  # frames x height x width; the training clip if empty
    split: str = "test"
    count: int = 64
    chunk: int = 0  # latent frames coded at a time; 0: all
    tile: int = 0  # pixels a side of a coded tile; 0: whole frames
    overlap: int = 0  # pixels that neighbouring tiles share
    rows: int = 1  # devices that share each clip
    fvd: bool | None = False  # Fréchet and kernel video distance; None: where they can be measured
    lpips: str = ""  # "vgg:FILE": LPIPS with the classifier in the file
    features: Path | None = None  # folder of I3D's outputs, which evaluations of the same clips share; in `out` if None


def evaluate_vae(task: VaeTask) -> dict[str, Any]:
    """Writes report.json, scores.json and report.html into `out`, and returns the content of the first.

    With tiles, `seam` is their distance from the whole frame: the largest and the mean difference of decoded pixels, in
    grey levels. Raises UserError for settings that do not work, missing weights and too few clips.
    """
    check_held_out(task.split)
    description, bundle = task.run.record["description"], task.run.vae()
    shape = ClipShape.parse(task.clip or description["clip"]).check(bundle.vae.config.strides)
    coder = _coder(task, bundle, shape)
    settings = _settings(task, shape)
    measures_fvd = _measures_fvd(task, shape, settings["clips"])
    net = Lpips.parse(task.lpips) if task.lpips else None
    settings["metrics"] = (SETTINGS if measures_fvd else {}) | ({"lpips": net.name} if net else {})
    claim(task.out, CLAIM, settings, "evaluation")
    coded = reconstruct(bundle, task.data, task.split, shape, task.count, coder)
    if net:
        coded = dataclasses.replace(coded, per_clip={**coded.per_clip, LPIPS: net(coded.clips, coded.decoded)})
    more = {**coded.curves(), "compression": description["compression"]}
    if task.tile:
        untiled = coder_in_pieces(bundle, task.chunk, 0, 0)
        whole = reconstruct(bundle, task.data, task.split, shape, task.count, untiled)
        more["seam"] = _seam(whole.decoded, coded.decoded)
    frame_rate = float(read_manifest(task.data).get("fps") or FRAME_RATE)
    evaluation = Evaluation(
        stage="vae",
        settings=settings,
        clips=write_clips(task.out, coded.prompts, coded.decoded, frame_rate),
        prompts=coded.prompts,
        metrics=coded.scores | (_distances(task.features or task.out / FEATURES, coded) if measures_fvd else {}),
        per_clip=coded.per_clip,
        more=more,
    )
    report = write_evaluation(task.out, evaluation)
    write_report(task.out / PAGE, _page(task, report, coded, frame_rate))
    return report


def _measures_fvd(task: VaeTask, shape: ClipShape, count: int) -> bool:
    """True where video distances are asked for, or can be measured. Raises UserError where only the first is so."""
    reason = obstacle(shape, count) if task.fvd is not False else "not asked for"
    if task.fvd and reason:
        raise UserError(reason)
    return not reason


@dataclasses.dataclass(frozen=True)
class Lpips:
    """LPIPS of one net, and a name for its weights."""

    net: Net
    params: Any
    name: str

    @classmethod
    def parse(cls, text: str) -> "Lpips":
        """Reads "vgg:FILE". Raises UserError for another form and where weights are missing."""
        net, _, file = text.partition(":")
        if net not in get_args(Net) or not file:
            raise UserError(f"--lpips={text} is not of the form {':FILE or '.join(get_args(Net))}:FILE")
        path = local_path(file)
        params = load_lpips(cast(Net, net), path)
        return cls(cast(Net, net), params, f"{net}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}")

    def __call__(self, reference: Clips, video: Clips) -> np.ndarray:
        pairs = zip(reference, tracked("LPIPS:", video, len(video)), strict=True)
        return np.concatenate([lpips(self.net, self.params, x[None], y[None]) for x, y in pairs])


def _coder(task: VaeTask, bundle: VaeBundle, shape: ClipShape) -> Coder | None:
    in_pieces = task.chunk or task.tile
    if task.rows > 1 and in_pieces:
        raise UserError("a clip is coded in pieces or over devices, not both: leave out --rows, or --chunk and --tile")
    if task.rows > 1:
        return coder_over_devices(bundle, shape, task.rows)
    return coder_in_pieces(bundle, task.chunk, task.tile, task.overlap) if in_pieces else None


def _settings(task: VaeTask, shape: ClipShape) -> dict[str, Any]:
    data = data_facts(task.data, task.split, task.count)
    coding = {name: getattr(task, name) for name in ("rows", "chunk", "tile", "overlap")}
    return {"run": str(task.run), **run_facts(task.run), **data, "clip": str(shape), **coding}


def _distances(features: Path, coded: Reconstruction) -> dict[Metric, Score]:
    cache, count = FeatureCache(features), len(coded.clips)
    sets = {"features of decoded clips:": coded.decoded, "features of real clips:": coded.clips}
    decoded, real = (np.stack([cache(frames) for frames in tracked(name, sets[name], count)]) for name in sets)
    return video_distances(decoded, real, paired=True)


def _seam(whole: Clips, tiled: Clips) -> dict[str, float]:
    difference = np.abs(whole.astype(np.float32) - tiled)
    return {"max": float(difference.max()), "mean": float(difference.mean())}


def _page(task: VaeTask, report: dict[str, Any], coded: Reconstruction, frame_rate: float) -> Report:
    compression = report["compression"]
    lead = f"A VAE of {compression} on {len(coded.clips)} clips that it was not trained on."
    blocks = [
        score_table(report),
        *reconstruction_blocks({task.data.name: coded}, frame_rate),
        worst_clips(coded, frame_rate),
    ]
    facts = protocol_facts({"compression": compression, **report["protocol"]})
    return Report(f"Evaluation of {task.run.path.name}", lead, facts, [Section("Scores", "", blocks)])

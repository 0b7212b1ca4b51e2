"""Evaluating a run on a data set: scores with their protocol, as JSON and as a page."""

from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json
from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.evals.report import Report, Section, write_report
from mobile_video_jax.stages.bundle import VaeBundle
from mobile_video_jax.stages.judge import judge, over_devices, pieces
from mobile_video_jax.stages.judge_report import judgement_blocks
from mobile_video_jax.train.run import read_run

FPS = 8


def evaluate_vae(
    run: Path,
    data: Path,
    out: Path,
    *,
    clip: str,
    split: str,
    count: int,
    chunk: int = 0,
    tile: int = 0,
    overlap: int = 0,
    rows: int = 1,
) -> dict[str, Any]:
    """Judges a VAE on up to `count` clips of a held-out split; writes report.json and report.html into `out`.

    `rows` devices share each clip. With `chunk` or `tile` clips are coded in pieces, and `seam` tells how far tiles
    are from the whole frame: the largest and the mean difference of decoded pixels, in grey levels.
    """
    described = read_run(run, "vae")["description"]
    bundle = VaeBundle.load(run)
    shape = ClipShape.parse(clip or described["clip"]).check(bundle.vae.config.strides)
    if rows > 1 and (chunk or tile):
        raise UserError("a clip is coded in pieces or over devices, not both: leave out --rows, or --chunk and --tile")
    code = pieces(bundle, chunk, tile, overlap) if chunk or tile else None
    code = over_devices(bundle, shape, rows) if rows > 1 else code
    judgement = judge(bundle, data, split, shape, count, code)
    protocol = {"run": str(run), "data": str(data), "split": split, "clip": str(shape), "clips": len(judgement.clips)}
    protocol |= {
        "rows": rows,
        "chunk": chunk,
        "tile": tile,
        "overlap": overlap,
        "commit": git_revision(),
        "hardware": hardware(),
    }
    numbers = {**judgement.numbers(), "compression": described["compression"], "protocol": protocol}
    if tile:
        whole = judge(bundle, data, split, shape, count, pieces(bundle, chunk, 0, 0)).decoded
        difference = np.abs(whole.astype(np.float32) - judgement.decoded)
        numbers["seam"] = {"max": float(difference.max()), "mean": float(difference.mean())}
    write_json(out / "report.json", numbers)
    facts = {key: str(value) for key, value in protocol.items() if value}
    lead = f"A VAE of {described['compression']} on {len(judgement.clips)} clips that it was not trained on."
    blocks = judgement_blocks({data.name: judgement}, FPS)
    write_report(out / "report.html", Report(f"Evaluation of {run.name}", lead, facts, [Section("Scores", "", blocks)]))
    return numbers

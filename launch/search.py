"""Searches a network's layout: python -m launch.search --model=RUN_OR_CONFIG --budget_ms=MS --out=DIR

Each block of a trained transformer of full attention may become another kind of attention at another resolution
(--config.kinds, --config.resolutions). Variants of all blocks are distilled from the block itself; the search chooses
one for each block within the budgets of one call: milliseconds on the phone (an estimate, or a measured table,
--costs), memory, FLOPs. Methods: dp (a dynamic program, exact on the rise of the held-out loss of one block at a time),
evolution (on the loss of whole layouts, with random search beside it), random.

Behind each place of a trained U-Net of images may be layers over time of one kind, or none (--config.temporal), for
clips of --config.clip in --data. They are trained together, the image network is not (SnapGen-V, arXiv 2412.10494).

Writes a run of the chosen layout that every command accepts: train it further with
--config=configs/recover.py:VARIANT --config.init_from=DIR, or a layout of fresh weights with --values=DIR/layout.yaml.
Writes costs.json, report.html, report.json and front.png beside it. Started again, it resumes.

A config, as --model=dit:s2dit, has no weights whose loss could be compared: the layout is chosen by cost alone, as one
that computes most within the budgets. There is no run then; train the layout with --config=dit:s2dit
--values=DIR/layout.yaml.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.ranges import Positive, Range
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.search.config import SearchConfig

if TYPE_CHECKING:
    from mobile_video_jax.models.denoiser import Denoiser
    from mobile_video_jax.search.candidates import Searched
    from mobile_video_jax.search.costs import CostTable

Flops = Annotated[float, Range(0, 1e18, open="low")]

CONFIG = cli.define_config(lambda values: SearchConfig, "The space and the search.", default=lambda: "search")
MODEL = flags.DEFINE_string("model", None, "A run, or FILE.py:VARIANT, a transformer's config.", required=True)
CHECKPOINT = cli.define_checkpoint("model")
DATA = flags.DEFINE_string("data", "", "Encoded clips; those the model was trained on if empty.")
OUT = cli.require_path("out", "The folder of the new run.", local=True)
METHOD = flags.DEFINE_enum("method", "dp", ["dp", "evolution", "random"], "How layouts are searched.")
MILLISECONDS = cli.define_number("budget_ms", None, Positive, "Most milliseconds of one call for one clip.")
MEMORY = cli.define_number("budget_memory", None, Positive, "Most megabytes of weights (16 bits) and the largest op.")
FLOPS = cli.define_number("budget_flops", None, Flops, "Most FLOPs of one call for one clip; a multiply-add is two.")
COSTS = cli.define_path("costs", "A cost table that was measured, as a search's costs.json.", local=True, exists=True)


def main() -> None:
    from mobile_video_jax.parallel.distributed import one_writer
    from mobile_video_jax.search.candidates import CHOSEN
    from mobile_video_jax.search.report import PAGE, write_search_report
    from mobile_video_jax.search.run import network_search
    from mobile_video_jax.search.space import as_text

    started, out = time.monotonic(), OUT.value
    with one_writer(out):
        denoiser, searched, table = searched_layouts(out)
        chosen = searched.candidates[CHOSEN]
        whole = network_search(CONFIG.value, denoiser).costs(chosen.layout)
        seconds = time.monotonic() - started
        numbers = write_search_report(searched, table, CONFIG.value.evolution, whole, out, seconds)
    print(as_text(chosen.layout))
    summary = {"out": str(out), "method": METHOD.value, "chosen": numbers["candidates"][CHOSEN], "seconds": seconds}
    cli.finish(out / PAGE, summary | {"by": numbers["by"]})


def searched_layouts(out: Path) -> "tuple[Denoiser, Searched, CostTable]":
    """The denoiser, its searched layouts and their costs: of a run by its loss, of a config by cost alone."""
    from mobile_video_jax.models.run import Run
    from mobile_video_jax.prune.plan import named_denoiser, names_config
    from mobile_video_jax.search.run import search
    from mobile_video_jax.search.untrained import search_untrained

    if names_config(MODEL.value):
        check_untrained()
        denoiser = named_denoiser(MODEL.value)
        return denoiser, *search_untrained(CONFIG.value, MODEL.value, denoiser, out, limits(), COSTS.value)
    run = Run.open(storage_path(MODEL.value), **CHECKPOINT.value)
    return run.denoiser, *search(CONFIG.value, run, DATA.value, out, limits(), METHOD.value, COSTS.value)


def check_untrained() -> None:
    """Raises UserError for flags that ask for weights, which a config has none of."""
    if METHOD.value != "dp" or DATA.value or any(CHECKPOINT.value.values()):
        raise UserError(
            f"{MODEL.value} is a config without weights, whose layout is searched by cost alone: leave out "
            "--method, --data, --step and --best, or name a run"
        )


def limits() -> dict[str, float]:
    """The budgets that flags set, by cost. Raises UserError without any."""
    budgets: dict[str, tuple[float | None, float]] = {
        "milliseconds": (MILLISECONDS.value, 1.0),
        "memory": (MEMORY.value, 1e6),
        "flops": (FLOPS.value, 1.0),
    }
    chosen = {name: value * unit for name, (value, unit) in budgets.items() if value is not None}
    if not chosen:
        raise UserError("a search needs a budget: set --budget_ms, --budget_memory or --budget_flops")
    return chosen


if __name__ == "__main__":
    cli.run(main, config=CONFIG)

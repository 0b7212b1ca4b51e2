"""Compiles a stage's training step ahead of time, for TPUs that are not there.

python -m launch.compile --config=configs/dit.py:server --topology=v5p:4x4x8 [--slices=2] [--config.mesh.fsdp=16 …]
  Bytes on each chip and whether they fit, FLOPs, bytes sent by each kind of collective, and an estimate of step time
  and MFU with its assumptions. Needs libtpu (pip install -e '.[tpu]'), and neither a TPU nor the data. A config that
  does not fit ends, after the table, with status 2.

With a config of pruning it compiles the scoring program instead, of a transformer that --model names:
  python -m launch.compile --config=configs/prune.py:paper --model=configs/dit.py:server --topology=v5e:4x4 --fsdp=16

--price=P adds the money for the whole run, at P dollars for an hour of one chip; hours and chip-hours of --steps, or of
the config's steps, are always there, by each estimate, with a line that says which one to plan with.

Configs with auto=True take the mesh, rematerialisation and batch that suit the topology, as training on it does; what a
flag sets stays. --search tries meshes, rematerialisation and batches per chip, best estimate first, until one fits.
--store writes the compiled step for launch.train --executable, --out the JSON of the report.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json
from mobile_video_jax.core.progress import phase, say
from mobile_video_jax.core.ranges import Count, Positive, Size
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.stages.config import training_class

if TYPE_CHECKING:
    from mobile_video_jax.cost.tpu.topology import Topology
    from mobile_video_jax.pods.compile import CompiledStep


def config_class(values: Mapping[str, Any]) -> type:
    """The class of a config: of pruning, or of the training stage that it names."""
    return PruneConfig if "ratios" in values else training_class(values)


CONFIG = cli.define_config(config_class, "The stage's config, or one of pruning.")
MODEL = flags.DEFINE_string("model", "", "With a config of pruning: a transformer's run directory or FILE.py:VARIANT.")
FSDP = cli.define_number("fsdp", 1, Size, "With a config of pruning: chips that share one copy of the weights.")
TOPOLOGY = flags.DEFINE_string("topology", None, "GENERATION:SHAPE, as v5p:4x4x8.", required=True)
SLICES = cli.define_number("slices", 1, Size, "Slices of this shape, joined by the data-centre network.")
XLA_FLAGS: flags.FlagHolder[str | None] = flags.DEFINE_string(
    "xla_flags", None, "The compiler's flags in place of the generation's, or none; short for --config.xla_flags."
)
SEARCH = flags.DEFINE_bool("search", False, "Choose mesh, remat and batch_size.")
STEPS: flags.FlagHolder[int | None] = cli.define_number(
    "steps", None, Count, "Steps of the whole run, for its hours; the config's if not named."
)
PRICE: flags.FlagHolder[float | None] = cli.define_number(
    "price", None, Positive, "Dollars for an hour of one chip, for the money that the run takes."
)
STORE = cli.define_path("store", "A file for the compiled step.", local=True)
OUT = cli.define_path("out", "A file for the report as JSON.", local=True)
JSON = flags.DEFINE_bool("json", False, "Print JSON alone.")


def report_table(report: dict[str, Any]) -> str:
    """The report as text."""
    mesh = " ".join(f"{axis}={size}" for axis, size in report["mesh"].items())
    slices = f"{report['slices']} x " if report["slices"] > 1 else ""
    lines = [
        f"{slices}{report['topology']}, {report['devices']} chips, mesh {mesh}, batch {report['batch_size']}",
        _row("parameters", f"{report['parameters']:,}"),
        _row("FLOPs a step", f"{report['flops_per_step']:.4g}"),
    ]
    for key in ("argument_bytes", "temporary_bytes", "peak_bytes", "limit_bytes"):
        if key in report:
            share = f"{report[key] / report['limit_bytes']:6.1%} of a chip"
            lines.append(_row(key.replace("_", " "), f"{report[key]:,}", share))
    if "roofline" in report:
        lines += _times(report) + _run(report["run"])
    for row in report.get("searched", []):
        lines.append(f"tried: {json.dumps(row)}")
    lines.append(f"compiled in {report['compile_seconds']:.0f} s")
    return "\n".join(lines)


def _times(report: dict[str, Any]) -> list[str]:
    lines = [f"{'bytes sent by a chip':22}{'count':>16}{'between chips':>20}{'between slices':>20}"]
    for kind, row in report["collectives"].items():
        lines.append(f"  {kind:20}{row['count']:>16,}{row['bytes']:>20,}{row['dcn_bytes']:>20,}")
    parts = report["roofline"]
    for part in ("compute", "vector", "hbm", "operations", "ici", "exposed", "dcn"):
        lines.append(_row(f"{part} seconds", f"{parts[part]:.4f}"))
    for name, meaning in (("overlapped", "all hidden behind the slowest"), ("serial", "operations do not overlap")):
        lines.append(
            _row(f"{name} seconds", f"{parts[f'{name}_seconds']:.4f}", f"MFU {parts[f'{name}_mfu']:.1%}, {meaning}")
        )
    lines.append(_row("step seconds", f"{report['step_seconds']:.4f}", f"MFU {report['mfu']:.1%}, estimated:"))
    return lines + [f"  {line}" for line in report["assumptions"]] + [f"flags: {report.get('xla_flags') or 'none'}"]


def _run(run: dict[str, Any]) -> list[str]:
    lines = [f"{run['steps']:<12,}{'steps':10}{'hours':>16}{'chip-hours':>16}{'dollars':>16}"]
    for name, cost in run["estimates"].items():
        dollars = "" if cost["dollars"] is None else f"{cost['dollars']:,.0f}"
        lines.append(f"  {name:20}{cost['hours']:>16,.1f}{cost['chip_hours']:>16,.0f}{dollars:>16}".rstrip())
    lines.append(
        f"Plan with {run['plan_with']}, the longest: nothing was timed on a TPU. "
        "Compiling, evaluation, checkpoints and restarts come on top."
    )
    return lines


def _row(name: str, value: str, note: str = "") -> str:
    return f"{name:22}{value:>16}  {note}".rstrip()


def check_storable(config: Any) -> None:
    """Raises UserError where the step would hold zeros in place of the state that a pipeline's "no caption" has."""
    from mobile_video_jax.text.encoder_name import in_pipeline

    if in_pipeline(getattr(config, "text_encoder", "")) and not config.data:
        raise UserError("the state of an empty caption becomes part of the stored step: name --config.data=LATENTS")


def compile_pruning(config: PruneConfig, topology: "Topology") -> dict[str, Any]:
    """The report of the scoring program. Raises UserError without a model, and for what only a step has."""
    from mobile_video_jax.pods.scoring import compile_scoring
    from mobile_video_jax.prune.plan import named_denoiser

    if not MODEL.value:
        raise UserError("say which transformer is scored with --model=configs/dit.py:VARIANT or --model=RUN")
    if SEARCH.value or STORE.value:
        raise UserError("--search and --store are for the step of a training stage: leave them out")
    return compile_scoring(config, named_denoiser(MODEL.value), topology, FSDP.value)


def main() -> None:
    from mobile_video_jax.cost.tpu.topology import Topology
    from mobile_video_jax.pods import scoring
    from mobile_video_jax.pods.compile import ADVICE, check_fits
    from mobile_video_jax.pods.run_cost import run_cost
    from mobile_video_jax.train.compiled_step import store_step

    config, topology = CONFIG.value, Topology(TOPOLOGY.value, SLICES.value)
    compiled: Any = None
    with phase(f"compiling for {topology.chips * topology.slices} chips"):
        if isinstance(config, PruneConfig):
            report = compile_pruning(config, topology)
        else:
            compiled = compile_training(topology)
            report = compiled.report
    if "roofline" in report:
        steps = report["programs"] if isinstance(config, PruneConfig) else config.steps
        report["run"] = run_cost(report, STEPS.value or steps, PRICE.value)
    if not JSON.value:
        print(report_table(report), flush=True)  # first, as a disk may refuse what took minutes to compile
    if OUT.value:
        write_json(OUT.value, report)
    if OUT.value and not JSON.value:
        print(OUT.value)
    print(json.dumps(report), flush=True)
    check_fits(report, scoring.ADVICE if isinstance(config, PruneConfig) else ADVICE)
    if STORE.value and compiled and compiled.executable:
        store_step(compiled.executable, compiled.stage, compiled.mesh, STORE.value)


def compile_training(topology: "Topology") -> "CompiledStep":
    """The step of the config's stage as it is, as `auto` completes it, or of the best mesh that --search finds."""
    from mobile_video_jax.pods.automatic import automatic
    from mobile_video_jax.pods.compile import compile_step
    from mobile_video_jax.pods.mesh_search import search
    from mobile_video_jax.stages.registry import stage_of

    if STORE.value:
        check_storable(stage_of(CONFIG.value).config)
    values = CONFIG.values | ({} if XLA_FLAGS.value is None else {"xla_flags": XLA_FLAGS.value})
    if not SEARCH.value:
        return compile_step(automatic(values, topology, CONFIG.changed), topology)
    compiled, rows = search(values, topology, say)
    compiled.report["searched"] = rows
    return compiled


if __name__ == "__main__":
    cli.run(main, config=CONFIG)

"""The estimates of a clip, of a package and of the published figures, as values and as text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.app.settings import own_steps
from export.estimate.clip import Plan, clip_estimate
from export.estimate.networks import NETWORKS
from export.estimate.ops import ops_of_program
from export.mil.load import load_package
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.phone.fit import calibrate
from mobile_video_jax.cost.phone.roofline import seconds_by, totals
from mobile_video_jax.cost.phone.table import CHIP, PHONE, stated
from mobile_video_jax.models.run import Run
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.registry import build_stage

Report = tuple[dict[str, Any], str]
TITLE = f"estimate for {PHONE} ({CHIP}); nothing was measured on a phone"
COLUMNS = {
    "ms": ("seconds", 1e3),
    "GFLOP": ("flops", 1e-9),
    "weights MB": ("weight_bytes", 1e-6),
    "activations MB": ("activation_bytes", 1e-6),
    "ops": ("ops", 1.0),
}


def of_config(config: Mapping[str, Any], **options: Any) -> Report:
    """The estimate of a clip with the options of a Plan. Raises UserError for a config that is no transformer's."""
    training = getattr(build_stage(config), "config", None)
    if not isinstance(training, DitTraining):
        raise UserError("the config is not a transformer's: give one such as configs/dit.py:mobile")
    result = clip_estimate(Plan(training, **options))
    return result, clip_table(result)


def of_run(path: Path, *, clip: str = "", steps: int = 0, **options: Any) -> Report:
    """The estimate of a run's clip, in its own steps and by its own table. Raises UserError for a run of a VAE."""
    denoiser = Run.open(path).denoiser
    sampling = denoiser.sampling
    plan = Plan(
        denoiser.config,
        clip=clip or str(denoiser.clip),
        steps=steps or own_steps(sampling),
        table=sampling.reuse,
        **options,
    )
    result = clip_estimate(plan)
    return result, clip_table(result)


def of_package(path: Path, function: str | None = None) -> Report:
    """Seconds of one call of a package, and their division among types of ops."""
    ops = ops_of_program(load_package(path).function(function))
    op_types = seconds_by(ops, lambda op: op.part)
    result = {"package": str(path), **totals(ops), "op_types": op_types}
    lines = [TITLE, f"{'one call':18}" + _heads(), f"{'':18}" + _cells(result)]
    return result, "\n".join([*lines, *(f"{name:40}{1e3 * seconds:9.2f} ms" for name, seconds in op_types.items())])


def of_figures() -> Report:
    """The fit to the published figures, and its errors."""
    result = calibrate({name: network() for name, network in NETWORKS.items()})
    return result, figures_table(result)


def clip_table(result: dict[str, Any]) -> str:
    """A clip's estimate as text."""
    low, high = result["frames_a_second_range"]
    lines = [
        TITLE,
        *result["warnings"],
        "{clip}, {steps} steps, {tiles} tiles, {weights}, decoder {decoder}".format(**result),
    ]
    lines.append(f"{'call':12}{'times':>6}" + _heads())
    lines += [f"{name:12}{row['times']:>6}" + _cells(row) for name, row in result["calls"].items()]
    lines.append(
        "{seconds:.2f} s a clip: {passes} and {decoder_seconds:.3f} s".format(passes=_passes(result), **result)
    )
    lines.append(f"{result['frames_a_second']:.1f} frames a second; {low:.1f} to {high:.1f} by figures held out")
    lines += [
        "{tiles} tiles: {0:.1f} ms a step, {1:.1f} MB of activations at its peak".format(
            1e3 * row["seconds_a_step"], 1e-6 * row["peak_activation_bytes"], **row
        )
        for row in result["by_tiles"]
    ]
    lines += [f"{chip:60}{rate:9.1f} frames a second" for chip, rate in result["by_chip"].items()]
    lines += [f"{name:60}{1e3 * seconds:9.1f} ms a clip" for name, seconds in result["parts"].items()]
    lines += [f"{row['change']:60}{row['frames_a_second']:9.1f} frames a second" for row in result["changes"]]
    return "\n".join([*lines, *(f"{name}: {value} ({source})" for name, value, source in stated())])


def figures_table(result: dict[str, Any]) -> str:
    """Published figures beside their estimates as text."""
    lines = ["shares reached: {compute:.1%} of operations, {memory:.1%} of memory bytes".format(**result)]
    lines.append(f"{'network':24}{'chip':10}{'published s':>12}{'fitted':>10}{'held out':>10}  source")
    for row in (*result["figures"], *result["beside"]):
        times = row["published"], row["fitted"], row["held_out"]
        cells = "{:12.4f}{:10.4f}{:10.4f}".format(*times)
        lines.append(f"{row['network']:24}{row['chip']:10}{cells}  {row['source']}")
    return "\n".join(lines)


def _heads() -> str:
    return "".join(f"{title:>16}" for title in COLUMNS)


def _cells(row: dict[str, Any]) -> str:
    return "".join(f"{row[key] * scale:>16,.1f}" for key, scale in COLUMNS.values())


def _passes(result: dict[str, Any]) -> str:
    """The network's calls, as `4 x 0.110 s`; those of a stream's first frame come behind those of its chunks."""
    rows = [row for name, row in result["calls"].items() if "dit" in name]
    return ", ".join(f"{row['times']} x {row['seconds']:.3f} s" for row in rows)

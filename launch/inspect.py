"""Counts what a model costs, and measures how large its activations get.

python -m launch.inspect --config=configs/dit.py:server [--json]
  Parameters and FLOPs of one forward pass of one clip, by part; bytes of the float32 parameters and of the largest
  result of a matrix product in the compute dtype; tokens and latent shape. Works from shapes alone: no memory is
  taken and no accelerator is touched.

python -m launch.inspect --model=RUN [--json]
  The same for a run, and FLOPs and estimated phone seconds of a clip in its own steps, by its table where it has one.

python -m launch.inspect --hours [--config=configs/dit.py:small] [--json]
  Devices, memory and hours of a whole training on named GPUs and TPUs, estimated, as a Markdown table; without --config
  of the `small` transformer, the `mobile` VAE, recovery and distillation.

python -m launch.inspect --activations --model=RUN [--data=DIR] [--batches=N] [--json]
  The largest absolute activations of a trained transformer on held-out clips, by kind and block, beside 65,504, the
  largest number of a phone's fp16.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from mobile_video_jax import cli
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import phase, say
from mobile_video_jax.core.ranges import Count
from mobile_video_jax.cost.phone.table import PHONE
from mobile_video_jax.stages.config import training_class

CONFIG = cli.define_config(training_class, "The stage's config.", required=False)
ACTIVATIONS = flags.DEFINE_bool("activations", False, "Measure the activations of the trained transformer --model.")
HOURS = flags.DEFINE_bool("hours", False, "Memory and hours of the whole training on named GPUs and TPUs, estimated.")
MODEL = cli.define_path("model", "A denoiser's run directory, in place of a config.", exists=True)
CHECKPOINT = cli.define_checkpoint("model")
DATA = flags.DEFINE_string("data", "", "With --activations: an encoded data set; the run's own if empty.")
BATCHES: flags.FlagHolder[int | None] = cli.define_number(
    "batches", None, Count, "With --activations: batches of held-out clips."
)
JSON = flags.DEFINE_bool("json", False, "Print JSON alone.")

COLUMNS = {
    "parameters": "parameters",
    "FLOPs": "flops",
    "bytes": "bytes_by_part",
    "largest activation": "activation_bytes",
}

TRAININGS = ("vae:mobile_t8_s32_c128", "dit:small", "recover:mobile", "distill:mobile")


def cost_table(costs: dict[str, Any]) -> str:
    """The costs as text; of a stage without a forward pass to count, what it is."""
    if "flops" not in costs:
        return "\n".join(f"{key}: {value}" for key, value in costs.items())
    columns = {title: costs[key] for title, key in COLUMNS.items() if key in costs}
    lines = [f"clip {costs['clip']}, latents {costs['latent_shape']}, {costs['tokens']} tokens"]
    lines.append(f"{'part':28}" + "".join(f"{title:>22}" for title in columns))
    for part in [*sorted({*costs["parameters"], *costs["flops"]} - {"total"}), "total"]:
        numbers = (f"{column[part]:,}" if part in column else "" for column in columns.values())
        lines.append((f"{part:28}" + "".join(f"{number:>22}" for number in numbers)).rstrip())
    lines.append(f"{costs['bytes']:,} bytes of float32 parameters")
    if trained := costs.get("trainable_parameters"):
        lines.append(f"{trained:,} of them trained: the factors of an adapter, beside the parameters above")
    if "activation_bytes" in costs:
        lines.append("largest activation: bytes of the largest matrix product of one block, in its compute dtype")
    if "phone_seconds" in costs:
        lines.append(f"{1e3 * costs['phone_seconds']:.1f} ms on an {PHONE}, estimated: nothing was measured on a phone")
    if sampled := costs.get("sampling"):
        lines.append(
            "a clip in {steps} steps, guidance {guidance:g}: {0:,.1f} GFLOP, {1:,.1f} ms on the phone{2}".format(
                sampled["flops"] / 1e9,
                1e3 * sampled["phone_seconds"],
                ", by its reuse table" if sampled["reuse"] else "",
                **sampled,
            )
        )
    if shares := costs.get("sampling", {}).get("stream_shares"):
        lines.append(
            "the table leaves {flops:.1%} of a stream's FLOPs, {latency:.1%} of its phone time".format(**shares)
        )
    for name, width in costs.get("widths", {}).items():
        seconds = f"{1e3 * width['phone_seconds']:.1f} ms there"
        lines.append(
            f"width {int(name) / 1000:g}: {width['parameters']:,} parameters, {width['flops']:,} FLOPs, {seconds}"
        )
    if per_frame := costs.get("decoder_flops_per_512_frame"):
        lines.append(f"decoding a 512x512 frame of a 49-frame clip: {per_frame / 1e9:.1f} GFLOP")
    return "\n".join(lines)


def activation_table(measured: dict[str, Any]) -> str:
    """The largest activations as text."""
    lines = [f"largest absolute activations in float32, {measured['clips']} held-out clips of {measured['data']}"]
    lines.append(f"{'activation':26}{'block':>6}{'value':>12}{'headroom':>12}{'of squares':>12}")
    for kind, entry in measured["activations"].items():
        block = "-" if entry["block"] is None else entry["block"]
        room = [entry[key] for key in ("headroom", "squares_headroom") if key in entry]
        factors = "".join(f"{factor:>12,.5g}" for factor in room)
        warning = "  overflows" if min(room) < 1 else ""
        lines.append(f"{kind:26}{block:>6}{entry['value']:>12,.6g}{factors}{warning}")
    lines.append("headroom: 65,504, the largest number of fp16, over the value; of squares, where a norm squares it,")
    lines.append("over value^2: a norm that computes in fp16 overflows above 255")
    return "\n".join(lines)


def hours_table(result: dict[str, Any]) -> str:
    """Devices with the memory of each, and device-hours, as a Markdown table of accelerators x trainings."""
    trainings = result["trainings"]
    heads = [f"{name}, {row['steps']:,} steps of {row['batch_size']} clips" for name, row in trainings.items()]
    lines = ["| device | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for kind in next(iter(trainings.values()))["accelerators"]:
        cells = (_cell(row["accelerators"][kind]) for row in trainings.values())
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, *result["assumptions"]])


def _cell(estimate: dict[str, Any]) -> str:
    if estimate["devices"] is None:
        return "does not fit"
    return f"{estimate['devices']} x {estimate['bytes'] / 1e9:.0f} GB, {estimate['device_hours']:,.0f} h"


def main() -> None:
    if HOURS.value and ACTIVATIONS.value:
        raise UserError("--hours and --activations are two tables: name one of them")
    measure, table = MEASURES[ACTIVATIONS.value, HOURS.value]
    result = measure()
    print(json.dumps(result) if JSON.value else table(result) + "\n" + json.dumps(result))


def _hours() -> dict[str, Any]:
    _shapes_alone()
    from mobile_video_jax.pods.accelerator_hours import hours_table

    configs = {name: cli.load_config(name) for name in TRAININGS}
    if CONFIG.value:
        configs = {str(CONFIG.text): CONFIG.values}
    with phase("inspect: tracing the networks"):
        return hours_table(configs)


def _shapes_alone() -> None:
    """Keeps JAX from looking for accelerators. Raises UserError for the flags of a trained model."""
    if CHECKPOINT.step.present or CHECKPOINT.best.present or DATA.value or BATCHES.value:
        raise UserError("--step, --best, --data and --batches are for a trained model: add --activations")
    import jax

    jax.config.update("jax_platforms", "cpu")  # else JAX looks for accelerators, and libtpu says what it misses


def _costs() -> dict[str, Any]:
    _shapes_alone()
    if (CONFIG.value is None) == (MODEL.value is None):
        raise UserError("give --config or --model=RUN; for a trained model's activations add --activations")
    if MODEL.value:
        return _costs_of_run(MODEL.value)
    from mobile_video_jax.stages.registry import stage_of

    with phase("inspect: tracing the network"):
        return stage_of(CONFIG.value).inspect()


def _costs_of_run(path: Path) -> dict[str, Any]:
    from mobile_video_jax.lazy.costs import sampling_costs
    from mobile_video_jax.models.run import Run

    denoiser = Run.open(path).denoiser
    with phase("inspect: tracing the network"):
        forward = denoiser.inspect()
        return {**forward, "sampling": sampling_costs(denoiser, forward)}


def _activations() -> dict[str, Any]:
    if CONFIG.value or MODEL.value is None:
        raise UserError("--activations measures a run, which has its own config: give --model=RUN and no --config")
    from mobile_video_jax.evaluate.fp16_headroom import largest_activations
    from mobile_video_jax.models.run import Run

    run = Run.open(MODEL.value, **CHECKPOINT.value)
    return largest_activations(run, DATA.value, BATCHES.value or 0, say)


# What is measured and shown, by --activations and --hours.
MEASURES: dict[tuple[bool, bool], tuple[Callable[[], dict[str, Any]], Callable[[dict[str, Any]], str]]] = {
    (False, False): (_costs, cost_table),
    (True, False): (_activations, activation_table),
    (False, True): (_hours, hours_table),
}


if __name__ == "__main__":
    cli.run(main, config=CONFIG)

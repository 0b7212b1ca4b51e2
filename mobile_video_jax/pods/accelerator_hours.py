"""Memory and hours of a whole training on an accelerator, estimated from the stage's shapes alone."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from mobile_video_jax.cost.accelerators import ACCELERATORS, Accelerator
from mobile_video_jax.cost.flops import count_parameters, written_bytes
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.pods.mesh_search import KEPT, RECOMPUTED, RESERVE
from mobile_video_jax.stages.registry import build_stage
from mobile_video_jax.train.state import trainable

# Of a trained parameter: float32 weight, average, moments and gradient, bf16 weight; of a frozen one its weight.
TRAINED_BYTES, FROZEN_BYTES = 22, 4
# Of a block whose gradient is being computed: bytes over those of its bf16 input, as in `small` compiled for v5e.
BLOCK = 150
# Of a network whose blocks are not recomputed: kept bytes over those that its products write. The VAE `full`, compiled
# for v5e, takes 3 to 5.
KEPT_OVER_WRITTEN = 4
# Bytes that move between memory and chip for each FLOP: steps of the transformers, the VAE and distillation, compiled
# for v5e, v5p and v6e, move 2.7e-3 to 4.7e-3.
BYTES_PER_FLOP = 4.7e-3
MOST_DEVICES = 1024

ASSUMPTIONS = (
    "estimated from shapes and published peaks; no accelerator was timed, and GPUs not even compiled for",
    "seconds = FLOPs at the peak of dense bf16 + 4.7e-3 bytes of memory traffic a FLOP, the most of compiled TPU steps",
    "devices x GB: the fewest, a power of two, that hold their share of the state and one clip, with 20 % free",
    "h: hours of one device, or of several together, without exchange, evaluation, checkpoints and waiting for data",
)


@dataclasses.dataclass(frozen=True)
class TrainingCost:
    """A whole training by what it takes of any accelerator."""

    state_bytes: int  # over all devices
    clip_bytes: int  # of activations, for each clip that a device computes at once
    flops: float  # that are executed, in all steps

    def device_hours(self, accelerator: Accelerator) -> float:
        """Hours of one device, or of several together."""
        return self.flops * (1 / accelerator.flops + BYTES_PER_FLOP / accelerator.bandwidth) / 3600

    def device_bytes(self, devices: int) -> int:
        """Bytes on each of so many devices with one clip at a time."""
        return self.state_bytes // devices + self.clip_bytes

    def fewest_devices(self, accelerator: Accelerator) -> int | None:
        """The fewest devices, a power of two, that hold it; None where no number does."""
        room, devices = (1 - RESERVE) * accelerator.memory_bytes, 1
        while self.device_bytes(devices) > room:
            devices *= 2
            if devices > MOST_DEVICES:
                return None
        return devices


def training_of(values: Mapping[str, Any]) -> TrainingCost:
    """What the training of a config takes."""
    stage = build_stage({**values, "batch_size": 1, "mesh": dataclasses.asdict(MeshConfig())})
    trained = count_parameters(trainable(stage, stage.shapes))
    frozen = count_parameters(stage.shapes) - trained
    remat = values["model"].get("remat", "none")
    return TrainingCost(
        state_bytes=TRAINED_BYTES * trained + FROZEN_BYTES * frozen,
        clip_bytes=_clip_bytes(stage, values, remat),
        flops=float(RECOMPUTED[remat] * stage.cost(1).flops * values["batch_size"] * values["steps"]),
    )


def _clip_bytes(stage: Any, values: Mapping[str, Any], remat: str) -> int:
    """Activations of one clip: the inputs of all networks' blocks and what one block keeps, or of every product."""
    if remat == "none":
        return KEPT_OVER_WRITTEN * written_bytes(stage.loss, stage.shapes, stage.abstract_batch(1), jax.random.key(0))
    networks = [values[key] for key in ("model", "teacher_model") if key in values]
    block: int = 2 * stage.batch_tokens(1) * max(network["width"] for network in networks)
    depth: int = sum(network["depth"] for network in networks)
    return block * (KEPT[remat] * depth + BLOCK)


def hours_table(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """For each config (by name) and accelerator: devices, bytes on each, and device-hours of all steps."""
    rows: dict[str, Any] = {}
    for name, values in configs.items():
        training, on = training_of(values), {}
        for kind, accelerator in ACCELERATORS.items():
            devices = training.fewest_devices(accelerator)
            on[kind] = {
                "devices": devices,
                "bytes": devices and training.device_bytes(devices),
                "device_hours": training.device_hours(accelerator),
            }
        rows[name] = {"steps": values["steps"], "batch_size": values["batch_size"], "accelerators": on}
    return {"trainings": rows, "assumptions": list(ASSUMPTIONS)}

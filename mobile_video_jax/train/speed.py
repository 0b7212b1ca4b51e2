"""Speed and memory of the steps between two lines of the log."""

import dataclasses

import jax
import numpy as np
from jax.experimental import multihost_utils

from mobile_video_jax.cost.tpu.topology import CHIPS, generation_of


@dataclasses.dataclass(frozen=True)
class Speed:
    """What a step computes, `flops` (without recomputation), on `devices`."""

    flops: int
    devices: int

    def metrics(self, steps_per_second: float, waited: float) -> dict[str, float]:
        """Seconds of a step, TFLOP/s and MFU of a device, memory in use, and how the hosts differ.

        `waited` are this process's seconds for data. MFU is there on TPUs, memory where the device tells it, and of
        several processes the spread of their step time and the longest wait. Every process must call it.
        """
        if not steps_per_second:
            return {}
        device = jax.local_devices()[0]
        generation, rate = generation_of(device.device_kind), self.flops * steps_per_second / self.devices
        values = {"step_seconds": 1 / steps_per_second, "tflops_per_device": rate / 1e12}
        if generation:
            values["mfu"] = rate / CHIPS[generation].flops
        if memory := device.memory_stats():
            values |= {f"memory_{name}": float(memory[name]) for name in ("bytes_in_use", "peak_bytes_in_use")}
        return values | _over_hosts(1 / steps_per_second, waited)


def _over_hosts(step_seconds: float, waited: float) -> dict[str, float]:
    if jax.process_count() == 1:
        return {}
    hosts = np.asarray(multihost_utils.process_allgather(np.array([step_seconds, waited], np.float32)))
    return {
        "step_seconds_spread": float(np.ptp(hosts[:, 0])),
        "longest_data_wait_seconds": float(hosts[:, 1].max()),
        "slowest_host": float(hosts[:, 1].argmax()),
    }

"""Figures of single accelerators by name, GPUs beside the chips of TPU topologies."""

import dataclasses

from mobile_video_jax.cost.tpu.topology import CHIPS


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """A GPU or TPU chip; rates are a second."""

    flops: float  # dense bf16 operations, sums in float32
    memory_bytes: int
    bandwidth: float  # bytes to and from memory


# Dense rates: NVIDIA's data sheets of L4, A100 80GB, H100 and H200 SXM (their figures with sparsity, halved), and for
# the RTX 4090 the white paper of the Ada architecture, appendix A (bf16 with sums in float32).
GPUS = {
    "L4": Accelerator(flops=121e12, memory_bytes=24 * 10**9, bandwidth=300e9),
    "RTX 4090": Accelerator(flops=165e12, memory_bytes=24 * 10**9, bandwidth=1008e9),
    "A100 80GB": Accelerator(flops=312e12, memory_bytes=80 * 10**9, bandwidth=2039e9),
    "H100": Accelerator(flops=989e12, memory_bytes=80 * 10**9, bandwidth=3350e9),
    "H200": Accelerator(flops=989e12, memory_bytes=141 * 10**9, bandwidth=4800e9),
}
TPUS = {name: Accelerator(chip.flops, chip.hbm_bytes, chip.hbm) for name, chip in CHIPS.items()}
ACCELERATORS = {**GPUS, **TPUS}

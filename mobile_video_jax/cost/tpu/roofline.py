"""Lower bounds of a compiled program's time, from the figures of its chips."""

import dataclasses

from mobile_video_jax.cost.tpu.collectives import Collective, collectives
from mobile_video_jax.cost.tpu.hlo import Program
from mobile_video_jax.cost.tpu.memory_traffic import moved_bytes
from mobile_video_jax.cost.tpu.products import device_flops
from mobile_video_jax.cost.tpu.topology import Topology

# Links of one axis of the torus, which a ring uses, as the compiled programs' 1-D emitters do.
RING_LINKS = 2

ASSUMPTIONS = (
    "matrix products run at the chip's peak, attention heads padded to the width of its arrays",
    "a chip moves data between HBM and its own memory while it computes, within the whole step",
    "collectives are rings over both links of one axis of the torus, and nothing hides them",
    "slices exchange over the hosts' network cards, shared by their chips",
    "nothing is lost to latency, the input pipeline or the host",
)


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one step on one chip by resource, each a lower bound."""

    compute: float  # FLOPs at the chip's peak
    hbm: float  # traffic with its memory
    operations: float  # summed over operations, the longer of computing and memory traffic
    ici: float  # collectives within a slice
    dcn: float  # exchange between slices

    @property
    def step(self) -> float:
        """max(compute, hbm) + ici + dcn."""
        return max(self.compute, self.hbm) + self.ici + self.dcn

    @property
    def overlapped(self) -> float:
        """The time if everything overlaps with the slowest part."""
        return max(self.compute, self.hbm, self.ici, self.dcn)

    @property
    def serial(self) -> float:
        """The time if operations do not overlap with one another's traffic: operations + ici + dcn."""
        return self.operations + self.ici + self.dcn


def roofline(program: Program, topology: Topology, sent: list[Collective] | None = None) -> Roofline:
    """The roofline of a program compiled for a topology; `sent` are its collectives, if they are known."""
    chip = topology.chip
    sent = collectives(program, topology.slices) if sent is None else sent
    flops = traffic = 0
    operations = 0.0
    for runs, computation in program.scheduled():
        for instruction in computation.values():
            products = device_flops(program, instruction, computation)
            moved = moved_bytes(program, instruction, computation)
            flops, traffic = flops + runs * products, traffic + runs * moved
            operations += runs * max(products / chip.flops, moved / chip.hbm)
    return Roofline(
        compute=flops / chip.flops,
        hbm=traffic / chip.hbm,
        operations=operations,
        ici=sum(each.runs * each.bytes for each in sent) / (RING_LINKS * chip.link),
        dcn=sum(each.runs * each.dcn_bytes for each in sent) / (chip.dcn / chip.machine_chips),
    )


def mfu(model_flops: int, devices: int, topology: Topology, seconds: float) -> float:
    """Model FLOP utilisation: the step's FLOPs without recomputation over those of the chips' peak in that time.

    Defined in arXiv 2204.02311, appendix B.
    """
    return model_flops / (devices * topology.chip.flops * seconds)

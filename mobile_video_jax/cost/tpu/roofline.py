"""Lower bounds of a compiled program's time, from the figures of its chips."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mobile_video_jax.cost.tpu.collectives import Collective, collectives
from mobile_video_jax.cost.tpu.hidden import hiding_seconds
from mobile_video_jax.cost.tpu.hlo import Instruction, Program
from mobile_video_jax.cost.tpu.memory_traffic import moved_bytes
from mobile_video_jax.cost.tpu.products import device_flops, vector_operations
from mobile_video_jax.cost.tpu.topology import Topology

# Links of one axis of the torus, which a ring uses, as the compiled programs' 1-D emitters do.
RING_LINKS = 2

ASSUMPTIONS = (
    "matrix products run at the chip's peak, attention heads padded to the width of its arrays",
    "an attention kernel's softmax runs on the vector unit between its products, at that unit's peak",
    "a chip moves data between HBM and its own memory while it computes, within the whole step",
    "collectives are rings over both links of one axis of the torus; those that the program runs beside operations are "
    "hidden as long as these take",
    "slices exchange over the hosts' network cards, shared by their chips",
    "nothing is lost to latency, the input pipeline or the host",
)


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one step on one chip by resource, each a lower bound."""

    compute: float  # FLOPs at the chip's peak, and softmax at the vector unit's
    vector: float  # of that, softmax
    hbm: float  # traffic with its memory
    operations: float  # summed over operations, the longer of computing and traffic; copies run beside them
    ici: float  # collectives within a slice
    exposed: float  # of that, what nothing in the program hides
    dcn: float  # exchange between slices

    @property
    def step(self) -> float:
        """max(compute, hbm) + exposed + dcn."""
        return max(self.compute, self.hbm) + self.exposed + self.dcn

    @property
    def overlapped(self) -> float:
        """The time if everything overlaps with the slowest part."""
        return max(self.compute, self.hbm, self.ici, self.dcn)

    @property
    def serial(self) -> float:
        """The time if operations do not overlap with one another's traffic: max(operations, hbm) + exposed + dcn."""
        return max(self.operations, self.hbm) + self.exposed + self.dcn


def roofline(program: Program, topology: Topology, sent: list[Collective] | None = None) -> Roofline:
    """The roofline of a program compiled for a topology; `sent` are its collectives, if they are known."""
    chip = topology.chip
    sent = collectives(program, topology.slices) if sent is None else sent

    def work(instruction: Instruction, computation: Mapping[str, Instruction]) -> tuple[float, float, float]:
        """Seconds of an operation on the arrays, on the vector unit, and of its traffic."""
        products = device_flops(program, instruction, computation, chip.array) / chip.flops
        vector = vector_operations(instruction, computation) / chip.vector
        return products, vector, moved_bytes(program, instruction, computation) / chip.hbm

    def seconds(instruction: Instruction, computation: Mapping[str, Instruction]) -> float:
        products, vector, traffic = work(instruction, computation)
        return max(products + vector, traffic)

    totals = np.zeros(4)
    for runs, computation in program.scheduled():
        for instruction in computation.values():
            products, vector, traffic = work(instruction, computation)
            alone = 0.0 if instruction.operation.endswith("-start") else max(products + vector, traffic)
            totals += runs * np.array([products, vector, traffic, alone])
    products, vector, traffic, operations = map(float, totals)
    hiding, links = hiding_seconds(program, seconds), RING_LINKS * chip.link
    moving = [(each.runs * each.bytes / links, hiding.get(each.channel, 0.0)) for each in sent]
    return Roofline(
        compute=products + vector,
        vector=vector,
        hbm=traffic,
        operations=operations,
        ici=sum((time for time, _ in moving), 0.0),
        exposed=sum((max(time - hidden, 0.0) for time, hidden in moving), 0.0),
        dcn=sum(each.runs * each.dcn_bytes for each in sent) / (chip.dcn / chip.machine_chips),
    )


def mfu(model_flops: int, devices: int, topology: Topology, seconds: float) -> float:
    """Model FLOP utilisation: the step's FLOPs without recomputation over those of the chips' peak in that time.

    Defined in arXiv 2204.02311, appendix B.
    """
    return model_flops / (devices * topology.chip.flops * seconds)

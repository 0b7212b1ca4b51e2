"""TPU topologies by name: the figures of their chips, and devices to compile for that need not be there."""

import dataclasses
import importlib.util
import math
import os
from typing import TYPE_CHECKING

from mobile_video_jax.core.errors import UserError

if TYPE_CHECKING:
    import jax

GIB = 1 << 30
SHAPES_2D = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
SHAPES_3D = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip of a TPU generation; rates are a second, and of networks in each direction."""

    kind: str  # its name as a device of JAX's
    flops: float  # bf16 operations
    array: int  # rows and columns of a systolic array
    vector: float  # operations of the vector units
    hbm_bytes: int  # of memory that programs may use
    hbm: float  # bytes to and from memory
    link: float  # bytes over one of the chip's links to its neighbours (ICI)
    dcn: float  # bytes of a machine over the data-centre network
    vms: int  # VMs on a machine
    shapes: tuple[str, ...]  # of a slice
    options: tuple[tuple[str, str], ...] = ()  # of libtpu's description of the topology

    @property
    def machine_chips(self) -> int:
        """Chips that share the network cards of a machine."""
        return self.vms * VM_CHIPS


# Chips of a VM, which is a host, a process and a pod of GKE, in slices of several hosts (GKE's machine types ct4p-,
# ct5lp-, ct5p- and ct6e-…-4t). A machine of v5e or v6e has eight chips, and so carries two VMs.
VM_CHIPS = 4

# FLOP/s, HBM, ICI and NICs: Google Cloud's page of each generation (docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e;
# read in 2026), which gives ICI for all 4 or 6 links in both directions: v5e 400, v5p 1,200 and v6e 800 GB/s. For v4
# the links are those of arXiv 2304.01433, and the NIC, which is not published, is taken as v5p's. HBM bytes are what
# libtpu 0.0.42 says is available when a program is too large. On v4 a device is a chip of two cores (megacore). The
# vector unit of a core is taken as 8 x 128 lanes of four units, at the clock that follows from the peak of its arrays.
CHIPS = {
    "v4": Chip(
        kind="TPU v4",
        flops=275e12,
        array=128,
        vector=8.6e12,
        hbm_bytes=int(30.75 * GIB),
        hbm=1.2e12,
        link=50e9,
        dcn=25e9,
        vms=1,
        shapes=SHAPES_3D,
        options=(("chip_config_name", "megacore"),),
    ),
    "v5e": Chip(
        kind="TPU v5 lite",
        flops=197e12,
        array=128,
        vector=6.2e12,
        hbm_bytes=int(15.75 * GIB),
        hbm=819e9,
        link=50e9,
        dcn=25e9,
        vms=2,
        shapes=SHAPES_2D,
    ),
    "v5p": Chip(
        kind="TPU v5",
        flops=459e12,
        array=128,
        vector=14.3e12,
        hbm_bytes=int(95.74 * GIB),
        hbm=2765e9,
        link=100e9,
        dcn=25e9,
        vms=1,
        shapes=SHAPES_3D,
    ),
    "v6e": Chip(
        kind="TPU v6 lite",
        flops=918e12,
        array=256,
        vector=7.2e12,
        hbm_bytes=int(31.25 * GIB),
        hbm=1638e9,
        link=100e9,
        dcn=100e9,
        vms=2,
        shapes=SHAPES_2D,
    ),
}


def generation_of(kind: str) -> str | None:
    """The generation of a device of JAX's by its device_kind; None for what is none of CHIPS."""
    return next((name for name, chip in CHIPS.items() if kind in (chip.kind, f"{chip.kind}p")), None)


# What libtpu would otherwise look for on a TPU host, at length; its lock is for processes that compute. Of its log only
# what ends the process is printed: errors come as exceptions.
_OFFLINE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Slices of chips of one shape, written v5p:4x4x8."""

    name: str
    slices: int = 1

    def __post_init__(self) -> None:
        generation, _, shape = self.name.partition(":")
        if generation not in CHIPS or shape not in CHIPS[generation].shapes:
            known = "; ".join(f"{name}: {', '.join(chip.shapes)}" for name, chip in CHIPS.items())
            raise UserError(f"topology '{self.name}' is unknown; use GENERATION:SHAPE of {known}")
        if self.slices < 1:
            raise UserError(f"{self.slices} slices: use 1 or more")

    @property
    def generation(self) -> str:
        """The name of the generation, as v5p."""
        return self.name.partition(":")[0]

    @property
    def chip(self) -> Chip:
        """The chip of this generation."""
        return CHIPS[self.generation]

    @property
    def chips(self) -> int:
        """Chips of one slice."""
        return math.prod(map(int, self.name.partition(":")[2].split("x")))

    @property
    def hosts(self) -> int:
        """Hosts of one slice: VMs, each of which runs one process."""
        return -(-self.chips // VM_CHIPS)

    def devices(self) -> "list[jax.Device]":
        """Devices to compile for, one a chip, slice after slice. Raises UserError where libtpu is missing."""
        if importlib.util.find_spec("libtpu") is None:
            raise UserError("compiling for TPUs needs libtpu: pip install -e '.[tpu]'")
        os.environ.update(_OFFLINE)
        options: dict[str, object] = dict(self.chip.options)
        if self.slices > 1:
            options["num_slices"] = self.slices
        from jax.experimental import topologies  # slow, and not needed for names and numbers

        return list(topologies.get_topology_desc(self.name, "tpu", **options).devices)

"""The device mesh: data, fsdp and tensor axes, and sequence where clips are long."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from mobile_video_jax.core.errors import UserError

AXES = ("data", "fsdp", "tensor")
SEQUENCE = "sequence"


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; data, fsdp or tensor may be -1, which takes what the others leave.

    `sequence` devices share the tokens of a clip. Its axis is in a mesh only where it is above 1.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    sequence: int = 1

    def sizes(self, devices: int) -> tuple[int, int, int]:
        """Data, fsdp and tensor without -1. Raises UserError where the axes do not multiply to the device count."""
        sizes = [self.data, self.fsdp, self.tensor]
        if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes) or self.sequence < 1:
            raise UserError(f"mesh {(*sizes, self.sequence)}: give positive sizes, one of the first three may be -1")
        rest = self.sequence * math.prod(size for size in sizes if size != -1)
        if devices % rest or (-1 not in sizes and rest != devices):
            raise UserError(
                f"mesh data={self.data} fsdp={self.fsdp} tensor={self.tensor} sequence={self.sequence} does not divide "
                f"{devices} device(s): set one axis to -1 or make the product {devices}"
            )
        data, fsdp, tensor = (devices // rest if size == -1 else size for size in sizes)
        return data, fsdp, tensor


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over all devices, or over those given (of a described topology, for compiling ahead of time).

    TPU slices lie along the data axis: what the slow network between them carries is gradients alone. Raises UserError
    where the slices do not divide that axis.
    """
    devices = jax.devices() if devices is None else devices
    data, *others = config.sizes(len(devices))
    axes: tuple[str, ...] = AXES
    if config.sequence > 1:
        axes, others = (*AXES, SEQUENCE), [*others, config.sequence]
    slices = slice_count(devices)
    if data % slices:
        raise UserError(f"mesh.data={data} does not divide over {slices} slices: use a multiple of {slices}")
    if slices == 1:
        grid = mesh_utils.create_device_mesh((data, *others), devices, allow_split_physical_axes=True)
    else:
        each, between = (data // slices, *others), (slices, *(1 for _ in others))
        grid = mesh_utils.create_hybrid_device_mesh(each, between, devices, allow_split_physical_axes=True)
    return Mesh(grid, axes, axis_types=(AxisType.Auto,) * len(axes))


def slice_count(devices: Sequence[jax.Device]) -> int:
    """How many TPU slices the devices are of; other devices are of one."""
    return len({getattr(device, "slice_index", 0) for device in devices if device.platform == "tpu"}) or 1


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its first axis over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def clip_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of clips in one-way coding: the batch as always, and each clip's rows over the tensor axis."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp"), None, "tensor"))


def check_batch(batch_size: int, mesh: Mesh | AbstractMesh) -> None:
    """Raises UserError where the global batch does not divide over the mesh."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % shards:
        raise UserError(
            f"batch_size {batch_size} does not divide over {shards} data shards: "
            f"use {max(batch_size // shards, 1) * shards}"
        )


def batch_shard(mesh: Mesh) -> tuple[int, int]:
    """Which share of every batch this process reads, and of how many. Those that hold the same rows read the same."""
    rows = mesh.devices.reshape(mesh.shape["data"] * mesh.shape["fsdp"], -1)
    held: dict[int, list[int]] = {}
    for row, devices in enumerate(rows):
        for process in {device.process_index for device in devices}:
            held.setdefault(process, []).append(row)
    shares = sorted({tuple(found) for found in held.values()})
    if len(rows) != sum(map(len, shares)) or len(set(map(len, shares))) > 1:
        raise UserError(
            f"mesh {dict(mesh.shape)} cuts the batch across processes unevenly: use a tensor axis within one"
        )
    return shares.index(tuple(held[jax.process_index()])), len(shares)


def put_batch(batch: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays of this process's part of a batch."""
    sharding = batch_sharding(mesh)
    return {key: jax.make_array_from_process_local_data(sharding, np.asarray(value)) for key, value in batch.items()}

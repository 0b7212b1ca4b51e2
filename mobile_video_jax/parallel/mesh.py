"""The device mesh: data, fsdp and tensor axes, and sequence where clips are long."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.parallel.config import MeshConfig

AXES = ("data", "fsdp", "tensor")
SEQUENCE = "sequence"


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Mesh over `devices`: all of this job by default, those of a topology for ahead-of-time compilation.

    The sequence axis exists only where it is above 1. TPU slices are laid along the data axis, so that the slow network
    between them carries gradients alone. Raises UserError where that axis is not a multiple of the slices.
    """
    devices = jax.devices() if devices is None else devices
    data, *others = config.sizes(len(devices))
    axes: tuple[str, ...] = AXES
    if config.sequence > 1:
        axes, others = (*AXES, SEQUENCE), [*others, config.sequence]
    if data % (slices := slice_count(devices)):
        raise UserError(f"mesh.data={data} does not divide over {slices} slices: use a multiple of {slices}")
    if slices == 1:
        grid = mesh_utils.create_device_mesh((data, *others), devices, allow_split_physical_axes=True)
    else:
        within, between = (data // slices, *others), (slices, *(1 for _ in others))
        grid = mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)
    return Mesh(grid, axes, axis_types=(AxisType.Auto,) * len(axes))


def slice_count(devices: Sequence[jax.Device]) -> int:
    """Number of TPU slices that the devices belong to; 1 for other devices."""
    return len({getattr(device, "slice_index", 0) for device in devices if device.platform == "tpu"}) or 1


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays that every device holds in full."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: its first axis over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def clip_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of clips for VAE encoding or decoding: the batch over data and fsdp, pixel rows over tensor."""
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
    """(index, count) of the batch shard that this process reads; processes whose devices hold the same rows share one.

    Raises UserError where processes hold different numbers of rows.
    """
    devices_by_row = mesh.devices.reshape(mesh.shape["data"] * mesh.shape["fsdp"], -1)
    rows_by_process: dict[int, tuple[int, ...]] = {}
    for row, devices in enumerate(devices_by_row):
        for process in {device.process_index for device in devices}:
            rows_by_process[process] = (*rows_by_process.get(process, ()), row)
    shards = sorted(set(rows_by_process.values()))
    if len(devices_by_row) != sum(map(len, shards)) or len(set(map(len, shards))) > 1:
        raise UserError(
            f"mesh {dict(mesh.shape)} shards the batch over processes unevenly: use a tensor axis within one process"
        )
    return shards.index(rows_by_process[jax.process_index()]), len(shards)


def put_batch(batch: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """Global arrays, sharded over the mesh, from this process's rows of a batch."""
    sharding = batch_sharding(mesh)
    return {key: jax.make_array_from_process_local_data(sharding, np.asarray(value)) for key, value in batch.items()}

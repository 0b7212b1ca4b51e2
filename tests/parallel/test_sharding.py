"""Mesh sizes and the table of sharding rules."""

import flax.linen as nn
import jax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from configs import dit
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.parallel import rules
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import AXES, check_batch
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.dit import DitStage


def mesh_of(data: int, fsdp: int, tensor: int) -> AbstractMesh:
    """A mesh of any size on a machine of one device: the rules read its shape alone."""
    return AbstractMesh((data, fsdp, tensor), AXES)


@pytest.mark.parametrize(
    ("config", "devices", "sizes"),
    [((-1, 1, 1), 8, (8, 1, 1)), ((2, -1, 2), 8, (2, 2, 2)), ((1, 1, 1), 1, (1, 1, 1)), ((4, 2, -1), 8, (4, 2, 1))],
)
def test_one_axis_takes_what_is_left(config, devices, sizes):
    assert MeshConfig(*config).sizes(devices) == sizes


@pytest.mark.parametrize("config", [(3, 1, 1), (-1, 3, 1), (-1, -1, 1), (2, 2, 1)])
def test_a_mesh_that_does_not_fit_is_refused(config):
    with pytest.raises(UserError, match="mesh"):
        MeshConfig(*config).sizes(8)


def test_a_batch_that_does_not_divide_names_one_that_does():
    with pytest.raises(UserError, match=r"batch_size 10 does not divide over 4 data shards: use 8"):
        check_batch(10, mesh_of(2, 2, 2))


def test_large_arrays_are_cut_and_small_ones_kept_whole():
    mesh = mesh_of(2, 4, 2)
    assert rules.partition_spec(("embed", "ffn"), (1024, 4096), mesh) == PartitionSpec("fsdp", "tensor")
    assert rules.partition_spec(("layers", "embed", "heads"), (3, 512, 512), mesh) == PartitionSpec(
        None, "fsdp", "tensor"
    )
    assert rules.partition_spec(("embed", "ffn"), (64, 64), mesh) == PartitionSpec()


def test_a_mesh_axis_used_twice_or_not_dividing_is_refused():
    with pytest.raises(UserError, match="one mesh axis twice"):
        rules.partition_spec(("heads", "ffn"), (1024, 1024), mesh_of(1, 1, 2))
    with pytest.raises(UserError, match=r"axis 'ffn' of 1000 does not divide over mesh\.tensor=16"):
        rules.partition_spec(("embed", "ffn"), (1024, 1000), mesh_of(1, 1, 16))


def test_every_large_parameter_of_the_server_model_is_cut():
    """On 16 x 16 chips each holds about 1/256 of the 2 B model: nothing large is left whole."""
    stage = DitStage(from_mapping(DitTraining, dit.get_config("server").to_dict()))
    boxed = jax.eval_shape(stage.init, jax.random.key(0))
    mesh = mesh_of(1, 16, 16)
    total = of_one_device = 0
    for leaf in jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)):
        spec = rules.partition_spec(leaf.names, leaf.value.shape, mesh)
        pieces = 1
        for axis in spec:
            pieces *= mesh.shape[axis] if axis else 1
        total, of_one_device = total + leaf.value.size, of_one_device + leaf.value.size / pieces
    assert of_one_device < 1.1 * total / 256 + 8e6

"""Search for the mesh, rematerialisation and batch of a topology: many estimates, few compilations."""

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.cost.tpu.roofline import RING_LINKS
from mobile_video_jax.cost.tpu.topology import Topology
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.remat import POLICIES
from mobile_video_jax.pods.compile import CompiledStep, compile_step
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.registry import build_stage
from mobile_video_jax.stages.student import StudentStage

BATCHES_PER_DEVICE = (1, 2, 4, 8, 16)
# How far the batch may grow over the config's: a step of more clips is quicker a clip, but learns less from each.
MOST_GROWTH, CHOSEN_GROWTH = 4, 2
MOST_COMPILED = 4
# Where fsdp takes all chips, XLA turns gathers into rings of products that read and write their sums at every chip.
LARGEST_WHOLE_FSDP = 8
# Bytes of the state for each parameter: float32 weights, their average and two moments; a frozen one's alone in bf16.
STATE_BYTES, FROZEN_BYTES = 16, 2
# Bytes that an optimizer's step moves for each trained parameter of a chip's shard. Compiled recoveries of `mobile` on
# v5p:4x4x8 differ by 220 between meshes of 128 x 1 and of 8 x 16, with the sums of whole gradients. 90 is no measure:
# by it recovery and the server transformer get the mesh, 8 x 16, whose compiled step was the fastest of those tried.
STATE_TRAFFIC = 90
# What a step executes over its model's FLOPs, and what a block keeps over its input: measured in compiled steps of the
# server transformer (dots keeps the results of ten matrix products, one of them four times as wide, and attention's).
RECOMPUTED = {"none": 1.0, "dots": 1.05, "full": 4 / 3}
KEPT = {"none": 40, "dots": 15, "full": 1}
# The same of a block with LayerNorms, which keeps float32 copies: measured in the compiled recovery of Wan 2.1 1.3B.
KEPT_LAYER_NORM = KEPT | {"none": 95}
# What `choose` takes over the fastest candidate where a clip takes at most so much longer: a smaller batch, no tensor
# axis, and fsdp of at most 16, with which a chip's share of the state is small and rings are short.
EQUALLY_FAST, ENOUGH_FSDP = 1.04, 16
# A candidate is not compiled where the estimate leaves less than this share of the memory free.
RESERVE = 0.2


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to train with its estimate: bytes on a chip, and seconds of a step for each clip of the batch."""

    mesh: MeshConfig
    remat: str
    batch_size: int
    bytes: float
    seconds: float

    def apply(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The config with this mesh, policy and batch."""
        changed = copy.deepcopy(dict(values))
        changed["mesh"] = dataclasses.asdict(self.mesh)
        changed["model"]["remat"] = self.remat
        return changed | {"batch_size": self.batch_size}


def search(
    values: Mapping[str, Any], topology: Topology, progress: Callable[[str], None]
) -> tuple[CompiledStep, list[dict[str, Any]]]:
    """Compiles the candidates that the estimate likes best until one fits.

    Returns it with a row for each one tried. Raises UserError where none of them fits.
    """
    rows: list[dict[str, Any]] = []
    for candidate in itertools.islice(candidates(values, topology), MOST_COMPILED):
        progress(f"compiling {describe(candidate)}, estimated at {candidate.bytes / 1e9:.1f} GB a chip")
        compiled = compile_step(candidate.apply(values), topology)
        report = compiled.report
        rows.append(
            {
                "mesh": report["mesh"],
                "remat": candidate.remat,
                "batch_size": candidate.batch_size,
                "estimated_bytes": int(candidate.bytes),
                **{key: report.get(key) for key in ("fits", "peak_bytes", "step_seconds", "mfu", "compile_seconds")},
            }
        )
        if report["fits"]:
            return compiled, rows
    tried = "; ".join(f"mesh {row['mesh']} {row['remat']} batch {row['batch_size']}" for row in rows)
    raise UserError(f"nothing fits {topology.name}, tried {tried or 'nothing'}: use a larger topology")


def candidates(
    values: Mapping[str, Any], topology: Topology, fixed: Mapping[str, Any] | None = None
) -> Iterator[Candidate]:
    """The ways to train that the estimate lets fit, the least seconds a clip first.

    Those alone that agree with the values in `fixed`, by key: mesh.AXIS (-1: any), model.remat, batch_size.
    """
    devices = topology.chips * topology.slices
    size, model = _model_size(values), values["model"]
    fitting = []
    counts = (*BATCHES_PER_DEVICE, *_counts_of((fixed or {}).get("batch_size", 0), devices))
    for mesh, remat, each in itertools.product(meshes(devices, topology.slices, model), POLICIES, counts):
        batch_size, needed = mesh.data * mesh.fsdp * each, chip_bytes(size, mesh, remat, each)
        grown = each > 1 and batch_size > MOST_GROWTH * values["batch_size"]
        agrees = fixed is None or _agrees(fixed, mesh, remat, batch_size)
        if agrees and not grown and needed < (1 - RESERVE) * topology.chip.hbm_bytes:
            seconds = clip_seconds(size, topology, mesh, remat, each)
            fitting.append(Candidate(mesh, remat, batch_size, needed, seconds))
    yield from sorted(fitting, key=lambda candidate: (candidate.seconds, candidate.bytes))


def choose(values: Mapping[str, Any], topology: Topology, fixed: Mapping[str, Any]) -> Candidate | None:
    """The candidate to train with: of those about as fast as the fastest the one of the smallest batch.

    None where the estimate lets nothing fit. It follows from shapes alone, so a plan and its run choose the same.
    """
    most = max(CHOSEN_GROWTH * values["batch_size"], topology.chips * topology.slices, fixed.get("batch_size", 0))
    fitting = [each for each in candidates(values, topology, fixed) if each.batch_size <= most]
    fast = [each for each in fitting if each.seconds <= EQUALLY_FAST * fitting[0].seconds]

    def rank(each: Candidate) -> tuple[int, int, int, float]:
        return each.batch_size, each.mesh.tensor, max(each.mesh.fsdp, ENOUGH_FSDP), each.seconds

    return min(fast, key=rank, default=None)


def _counts_of(batch_size: int, devices: int) -> set[int]:
    """Clips on each of the groups of devices that may share a batch of a certain size."""
    return {batch_size // 2**i for i in range(devices.bit_length()) if batch_size and batch_size % 2**i == 0}


def _agrees(fixed: Mapping[str, Any], mesh: MeshConfig, remat: str, batch_size: int) -> bool:
    values = {f"mesh.{axis}": size for axis, size in dataclasses.asdict(mesh).items()}
    values |= {"model.remat": remat, "batch_size": batch_size}
    return all(fixed.get(key, -1) in (-1, value) for key, value in values.items())


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """Facts of a stage for estimates: its parameters, and of one clip the FLOPs, the tokens and the network's sizes.

    `passes` is the FLOPs of a step over those of plain training of the network: a teacher's and a critic's are more.
    """

    parameters: int  # that are trained
    frozen: int  # that are not
    flops: int
    passes: float
    tokens: int
    width: int
    depth: int
    kept: Mapping[str, int]  # what a block keeps over its input, by the policy of rematerialisation

    def block_bytes(self, clips: int) -> int:
        """A block's input in bf16."""
        return 2 * self.tokens * clips * self.width

    @property
    def state_bytes(self) -> int:
        """Of all chips together."""
        return STATE_BYTES * self.parameters + FROZEN_BYTES * self.frozen


def chip_bytes(size: ModelSize, mesh: MeshConfig, remat: str, clips: int) -> float:
    """Bytes on a chip with so many clips: its shard of the state, and activations, sharded by tensor where wide.

    Activations grow with half of the passes, as in a compiled distillation, whose gradient flows through its teacher.
    """
    block = size.block_bytes(clips)
    kept = size.depth * max(1.0, size.passes / 2)
    activations = block * kept * (1 if remat == "full" else size.kept[remat] / mesh.tensor)
    return size.state_bytes / (mesh.fsdp * mesh.tensor) + activations + size.kept["none"] * block / mesh.tensor


def clip_seconds(size: ModelSize, topology: Topology, mesh: MeshConfig, remat: str, clips: int) -> float:
    """Seconds of a step for each clip of the batch, with so many clips on a chip.

    Computing at the chip's peak; what blocks keep, written and read, and the state, read and written by the optimizer;
    and what goes over both links of one axis: the bf16 weights of the rest of fsdp, gathered twice and their gradients
    scattered once, frozen ones gathered once; the sum of a chip's own gradients over data; and with tensor four sums of
    activations a block in plain training, as many times as there are passes. Between slices the gradients go over the
    hosts' network.
    """
    chip = topology.chip
    compute = RECOMPUTED[remat] * size.flops * clips / (mesh.tensor * chip.flops)
    saved_bytes = size.block_bytes(clips) * size.depth * size.kept[remat] / mesh.tensor
    traffic = (2 * saved_bytes + STATE_TRAFFIC * size.parameters / (mesh.fsdp * mesh.tensor)) / chip.hbm
    weights = 2 * (3 * size.parameters + size.frozen) / mesh.tensor * (mesh.fsdp - 1) / mesh.fsdp
    gradients = 2 * 2 * size.parameters / (mesh.fsdp * mesh.tensor)
    sums = size.passes * 4 * 2 * size.block_bytes(clips) * size.depth * (mesh.tensor - 1) / mesh.tensor
    over_data = gradients * (mesh.data - 1) / mesh.data
    between = gradients * (topology.slices - 1) / topology.slices / (chip.dcn / chip.machine_chips)
    seconds = compute + traffic + (weights + over_data + sums) / (RING_LINKS * chip.link) + between
    return seconds / (mesh.data * mesh.fsdp * clips)


def _model_size(values: Mapping[str, Any]) -> ModelSize:
    stage = build_stage({**values, "batch_size": 1, "mesh": dataclasses.asdict(MeshConfig())})
    cost, model = stage.cost(1), values["model"]
    frozen = sum(count_parameters(stage.shapes[part]) for part in stage.frozen)
    passes = cost.flops / DitStage(stage.config).cost(1).flops if isinstance(stage, StudentStage) else 1.0
    return ModelSize(
        parameters=count_parameters(stage.shapes) - frozen,
        frozen=frozen,
        flops=cost.flops,
        passes=passes,
        tokens=cost.tokens,
        width=model.get("width", 0),
        depth=model.get("depth", 0),
        kept=KEPT_LAYER_NORM if model.get("block_layer_norm") else KEPT,
    )


def meshes(devices: int, slices: int, model: Mapping[str, Any]) -> Iterator[MeshConfig]:
    """The meshes of so many devices, slices along data, whose other axes divide the model's width and heads."""
    sizes = [2**i for i in range(devices.bit_length()) if devices % 2**i == 0]
    for fsdp, tensor in itertools.product(sizes, sizes):
        data = devices // (fsdp * tensor)
        if data < 1 or data % slices or tensor > 8:
            continue
        if model.get("width", 1) % fsdp or model.get("heads", 1) % tensor:
            continue
        if data == 1 and fsdp > LARGEST_WHOLE_FSDP:
            continue
        yield MeshConfig(data, fsdp, tensor)


def describe(candidate: Candidate) -> str:
    """A candidate in a few words."""
    mesh = "x".join(map(str, dataclasses.astuple(candidate.mesh)))
    return f"mesh {mesh} (data x fsdp x tensor), remat {candidate.remat}, batch {candidate.batch_size}"

"""The train step compiled ahead of time: lowered from shapes alone, stored in a file, and used at a run's start."""

import dataclasses
import hashlib
import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.sharding import Mesh

import mobile_video_jax
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing
from mobile_video_jax.parallel.abstract import abstract
from mobile_video_jax.parallel.mesh import batch_sharding
from mobile_video_jax.train.optimizer import make_optimizer
from mobile_video_jax.train.run import MAY_CHANGE
from mobile_video_jax.train.stage import Batch, Metrics, Stage
from mobile_video_jax.train.state import TrainState, state_shardings
from mobile_video_jax.train.step import Step, make_step
from mobile_video_jax.weights.restricted_pickle import RestrictedUnpickler

# What may differ between compiling and training; the learning rate's schedule has the number of steps in it.
NOT_COMPILED = frozenset(MAY_CHANGE) - {"steps", "xla_flags"}


class _Inert:
    """Stands for an object of a pickle that is read for the names in it alone."""

    def __new__(cls, *_: Any, **__: Any) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Takes what the object would be made of."""

    def __setstate__(self, state: Any) -> None:
        """Takes what it would be filled with."""


# What the pickles of jax.experimental.serialize_executable ask for; a file that asks for more is not opened.
ASKED_FOR = (
    *(("jax._src.core", name) for name in ("ManualAxisType", "MemorySpace", "ShapedArray")),
    *(("jax._src.interpreters.pxla", name) for name in ("AllArgsInfo", "UnloadedMeshExecutable")),
    *(("jax._src.mesh", name) for name in ("AbstractDevice", "AbstractMesh", "AxisType", "Mesh")),
    *(("jax", "P"), ("jax._src.layout", "Layout"), ("jax._src.linear_util", "DebugInfo")),
    ("jax._src.layout", "AutoLayoutSingleton"),  # from JAX 0.11
    *(("jax._src.named_sharding", "_unpickle_named_sharding"), ("jax._src.stages", "ArgInfo")),
    *(("jaxlib._jax", "DeviceList"), ("numpy", "dtype"), ("numpy", "ndarray")),
    ("numpy._core.multiarray", "_reconstruct"),
)


class _Names(RestrictedUnpickler):
    """Reads such a pickle and builds nothing. Raises UnpicklingError where it asks for anything but ASKED_FOR."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(io.BytesIO(payload), dict.fromkeys(ASKED_FOR, _Inert))

    def persistent_load(self, pid: Any) -> None:
        """Devices and the program itself, which JAX numbers."""


def lower_step(stage: Stage, mesh: Mesh) -> tuple[jax.stages.Lowered, TrainState]:
    """The step that launch.train runs, ready to compile for the mesh's devices, and its state: shapes and shardings."""
    optimizer = make_optimizer(stage.config.optimizer, stage.config.steps)
    shapes, shardings = state_shardings(stage, optimizer, mesh)
    step: Any = make_step(stage, optimizer, mesh, shardings)
    state = jax.tree.map(abstract, shapes, shardings)
    batch = jax.tree.map(lambda x: abstract(x, batch_sharding(mesh)), stage.abstract_batch(mesh.size))
    return step.lower(state, batch), state


def store_step(executable: jax.stages.Compiled, stage: Stage, mesh: Mesh, path: Path) -> None:
    """Writes a compiled step: a line of JSON that says what it was compiled from, then JAX's serialization."""
    payload, _, out_tree = serialize_executable.serialize(executable)
    _, metrics = jax.tree.unflatten(out_tree, range(out_tree.num_leaves))
    origin = {**_origin(stage, mesh), "metrics": sorted(metrics), "sha256": hashlib.sha256(payload).hexdigest()}
    with replacing(path) as temporary:
        temporary.write_bytes(json.dumps(origin).encode() + b"\n" + payload)


@dataclasses.dataclass(frozen=True)
class StoredStep:
    """A file of store_step that fits a stage and a mesh. It is machine code: use none that you did not make."""

    payload: bytes
    metrics: tuple[str, ...]
    batch: Batch
    mesh: Mesh

    @classmethod
    def read(cls, path: Path, stage: Stage, mesh: Mesh) -> "StoredStep":
        """Raises UserError where the file is missing, damaged, or compiled from or for anything else."""
        if not path.is_file():
            raise UserError(f"{path} is missing: make it with launch.compile --store")
        line, _, payload = path.read_bytes().partition(b"\n")
        try:
            origin = json.loads(line)
            if hashlib.sha256(payload).hexdigest() != origin["sha256"]:
                raise ValueError("its end is missing")
            _Names(payload).load()
        except (ValueError, TypeError, KeyError, pickle.UnpicklingError) as error:
            raise UserError(f"{path} is no compiled step ({error}): make it with launch.compile --store") from error
        _check_origin(path, origin, _origin(stage, mesh))
        return cls(payload, tuple(origin["metrics"]), stage.abstract_batch(mesh.size), mesh)

    def load(self, state: TrainState, otherwise: Step) -> Step:
        """The step for batches of the shapes that were compiled; others (of another bucket) take `otherwise`."""
        in_tree = jax.tree.structure(((state, self.batch), {}))
        out_tree = jax.tree.structure((state, dict.fromkeys(self.metrics, 0)))
        devices = list(self.mesh.devices.flat)
        loaded = serialize_executable.deserialize_and_load(
            self.payload, in_tree, out_tree, devices[0].client, execution_devices=devices
        )

        def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            same = batch.keys() == self.batch.keys() and all(
                batch[key].shape == shape.shape for key, shape in self.batch.items()
            )
            return (loaded if same else otherwise)(state, batch)

        return step


def _origin(stage: Stage, mesh: Mesh) -> dict[str, Any]:
    """All that the program depends on, by name."""
    config = {key: value for key, value in dataclasses.asdict(stage.config).items() if key not in NOT_COMPILED}
    named = jax.tree_util.tree_leaves_with_path({"config": config, "mesh": dict(mesh.shape)})
    return {
        **{jax.tree_util.keystr(path, simple=True, separator="."): value for path, value in named},
        "device": mesh.devices.flat[0].device_kind,
        "devices": [device.id for device in mesh.devices.flat],
        "jax": jax.__version__,
        "code": _code(),
    }


def _code() -> str:
    """A digest of the package's files: a step compiled before a change would train as if it had not been made."""
    root = Path(mobile_video_jax.__file__).parent
    files = sorted(root.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _check_origin(path: Path, stored: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for key, value in expected.items():
        if stored.get(key) != value:
            raise UserError(
                f"{path} was compiled for {key}={stored.get(key)}, this run has {value}: "
                "compile it again, or train without --executable"
            )

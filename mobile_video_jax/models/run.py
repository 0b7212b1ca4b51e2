"""Run directories, each read once: the record, and the models that a run holds."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from jax.sharding import Mesh

from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing
from mobile_video_jax.core.storage import ObjectPath, storage_path
from mobile_video_jax.dit.config import LoraConfig
from mobile_video_jax.models.adapter import check_base, merge_adapter, read_base, restore_adapter
from mobile_video_jax.models.config import DenoiserConfig
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.sampling import sampling_of
from mobile_video_jax.models.vae import VaeBundle
from mobile_video_jax.train.checkpoint import copy_model, newest_step, restore_model
from mobile_video_jax.train.run import NAME, read_run
from mobile_video_jax.vae.latent_stats import NAME as STATS

T = TypeVar("T")
VAE = "vae"  # the stage of a VAE's run, and the folder of the VAE inside a denoiser's


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run directory and its record, run.json, which is read when the run is opened and handed on from there."""

    path: Path
    record: Mapping[str, Any]

    @classmethod
    def open(cls, run: "str | Path | Run", stage: str | None = None) -> "Run":
        """Reads the record of a run; a text may name one in a bucket, gs://BUCKET/NAME. An open run is returned.

        Raises UserError where the run is missing or damaged, or of another stage than `stage`.
        """
        if isinstance(run, Run):
            return run
        path = storage_path(run) if isinstance(run, str) else run
        return cls(path, read_run(path, stage))

    def __str__(self) -> str:
        return str(self.path)

    @property
    def stage(self) -> str:
        """The stage that trained it."""
        return str(self.record["stage"])

    @property
    def config(self) -> dict[str, Any]:
        """The config that it was trained with."""
        return dict(self.record["config"])

    @property
    def step(self) -> int | None:
        """The step of the newest complete checkpoint, None where there is none."""
        return newest_step(self.path)

    def config_as(self, cls: type[T], **changes: Any) -> T:
        """The config's keys that are fields of `cls`, with `changes`, as that class."""
        names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return from_mapping(cls, {key: value for key, value in self.config.items() if key in names} | changes)

    @functools.cached_property
    def denoiser(self) -> Denoiser:
        """The denoiser that it trained, without parameters. Raises UserError for a run that holds none."""
        if "text_encoder" not in self.config:  # only what is generated from captions names one
            raise UserError(f"{self} is a run of stage '{self.stage}', which holds no transformer: name another run")
        return Denoiser(self.config_as(DenoiserConfig), sampling_of(self.record))

    def find(self, name: str) -> Path:
        """The folder that the run names: as it is named or, where that is gone, moved together with the run."""
        path = storage_path(name)
        if path.exists() or isinstance(path, ObjectPath) or "folder" not in self.record:
            return path
        before = Path(self.record["working_directory"], name)
        moved = Path(os.path.normpath(self.path.absolute() / os.path.relpath(before, self.record["folder"])))
        return moved if moved.exists() else path

    def vae_run(self) -> "Run":
        """The run of its VAE: itself, or the one in a denoiser's run."""
        return self if self.stage == VAE else Run.open(self.path / VAE, VAE)

    def vae(self) -> VaeBundle:
        """Its VAE with parameters. Raises UserError where that is missing, unfinished or damaged."""
        run = self.vae_run()
        return VaeBundle.load(run.path, run.config["model"])

    def params(self, target: Any) -> Any:
        """The EMA parameters of the newest checkpoint, sharded like `target`; an adapter's are merged into its base's.

        Raises UserError where the run or its base is missing or damaged, or the base has been trained since.
        """
        lora = from_mapping(LoraConfig, self.config.get("lora", {}))
        if not lora.rank:
            return restore_model(self.path, target)
        base, step = read_base(self.path)
        base_params = Run.open(check_base(self.path, self.find(base), step)).params(target)
        return merge_adapter(base_params, restore_adapter(self.path, lora, target), lora)

    def sharded_params(self, mesh: Mesh) -> Any:
        """The EMA parameters of its denoiser, sharded over a mesh."""
        return self.params(self.denoiser.abstract_params(mesh))

    def copy(self, out: Path) -> None:
        """Copies what using the run needs (newest model, record, latent statistics), unless `out` holds it already."""
        if (out / NAME).exists():
            return
        with replacing(out) as temporary:
            copy_model(self.path, temporary)
            for name in (NAME, STATS):
                if (self.path / name).exists():
                    (temporary / name).write_bytes((self.path / name).read_bytes())

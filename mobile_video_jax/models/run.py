"""Run directories, each read once: the record, and the models that a run holds."""

import dataclasses
import functools
import os
import re
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
from mobile_video_jax.train.checkpoint import best_step, checkpoint_path, copy_model, newest_step, restore_model, steps
from mobile_video_jax.train.run import NAME, read_run
from mobile_video_jax.train.synthetic import check_not_synthetic
from mobile_video_jax.vae.latent_stats import NAME as STATS

T = TypeVar("T")
VAE = "vae"  # the stage of a VAE's run, and the folder of the VAE inside a denoiser's
REWARDS = ("reward",)  # stages whose runs name a text encoder and generate nothing
EXPERTS = "experts"  # the stage of a run whose networks are runs in its folders: above and below a time
EXPERT_FOLDERS = ("high_noise", "low_noise")
CHECKPOINT = re.compile(r"(.+)@(\d+|best)")  # what a text names beside a run


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run directory and its record, run.json, which is read when the run is opened and handed on from there."""

    path: Path
    record: Mapping[str, Any]
    chosen_step: int | None = None  # the checkpoint to read; None: the newest
    chosen_rate: float = 0.0  # frames a second of the clips to generate; 0: those of the run

    @classmethod
    def open(
        cls, run: "str | Path | Run", stage: str | None = None, *, step: int | None = None, best: bool = False
    ) -> "Run":
        """Reads the record of a run; an open run is returned. `step` or `best` chooses a checkpoint, see `at`.

        A text may name a run in a bucket, gs://BUCKET/NAME, and a checkpoint, RUN@500 or RUN@best. Raises UserError
        where the run or the checkpoint is missing or damaged, and for a run of another stage than `stage`.
        """
        if isinstance(run, str):
            run, checkpoint = split_checkpoint(run)
            return cls.open(storage_path(run), stage, **checkpoint).at(step, best)
        opened = run if isinstance(run, Run) else cls(run, read_run(run, stage))
        return opened.at(step, best)

    def at(self, step: int | None = None, best: bool = False) -> "Run":
        """The run with the checkpoint of `step`, or the `best`, the one of the least evaluation loss.

        Raises UserError where there is no such checkpoint.
        """
        if self.stage == EXPERTS and (best or step is not None):
            raise UserError(f"{self} holds two experts with checkpoints of their own: leave --step and --best out")
        if best and step is not None:
            raise UserError(f"both a step, {step}, and the best checkpoint of {self} are chosen: leave one out")
        if best and (step := best_step(self.path)) is None:
            names = ", ".join(map(str, steps(self.path))) or "none"
            raise UserError(f"no checkpoint of {self} was evaluated, so none is the best: name a step; it has {names}")
        if step is None:
            return self
        checkpoint_path(self.path, step)
        return dataclasses.replace(self, chosen_step=step)

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
        """The step of the checkpoint that is read, the newest complete one if none was chosen; None without any."""
        return newest_step(self.path) if self.chosen_step is None else self.chosen_step

    @property
    def name(self) -> str:
        """The name that opens the same checkpoint from any working directory."""
        return f"{self.path.absolute()}{'' if self.chosen_step is None else f'@{self.chosen_step}'}"

    def config_as(self, cls: type[T], **changes: Any) -> T:
        """The config's keys that are fields of `cls`, with `changes`, as that class."""
        names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return from_mapping(cls, {key: value for key, value in self.config.items() if key in names} | changes)

    def at_rate(self, frames_a_second: float | None) -> "Run":
        """The run for clips of another frame rate, which positions in seconds follow; None: of its own."""
        return dataclasses.replace(self, chosen_rate=frames_a_second) if frames_a_second else self

    @functools.cached_property
    def denoiser(self) -> Denoiser:
        """The denoiser that it trained, without parameters. Raises UserError for a run that holds none."""
        if self.stage == EXPERTS:
            first, second = (self.path / name for name in EXPERT_FOLDERS)
            raise UserError(f"{self} holds two experts, and this works on one network: name {first} or {second}")
        if "text_encoder" not in self.config or self.stage in REWARDS:  # only what is generated from captions names one
            raise UserError(f"{self} is a run of stage '{self.stage}', which holds no transformer: name another run")
        return self._denoiser()

    @functools.cached_property
    def sampled(self) -> Denoiser:
        """What is sampled: the denoiser, or the one that the experts have in common."""
        return self._denoiser() if self.stage == EXPERTS else self.denoiser

    def _denoiser(self) -> Denoiser:
        config, sampling = self.config_as(DenoiserConfig), sampling_of(self.record)
        if self.chosen_rate:
            config = config.at_rate(self.chosen_rate)
            sampling = dataclasses.replace(sampling, frame_rate=self.chosen_rate)
        return Denoiser(config, sampling)

    def check_teaches(self) -> None:
        """Raises UserError for a run that was distilled at listed times, as a teacher is asked at others."""
        if times := self.denoiser.sampling.times:
            raise UserError(
                f"{self} was distilled at the times {','.join(map(str, times))} and teaches at no others: "
                "name a run of the release that it was distilled from"
            )

    @property
    def experts(self) -> tuple["Run", ...]:
        """The runs of its networks, that of the greater times first; itself where it has one for all times."""
        if self.stage != EXPERTS:
            return (self,)
        return tuple(Run.open(self.path / name) for name in EXPERT_FOLDERS)

    def find(self, name: str) -> str:
        """The run that this one names: as it is named or, where that is gone, moved together with this one."""
        folder, _ = split_checkpoint(name)
        return f"{self._find(folder)}{name.removeprefix(folder)}"

    def _find(self, name: str) -> Path:
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
        """Its VAE with parameters.

        Raises UserError where that is missing, unfinished or damaged, and for a run on synthetic batches.
        """
        check_not_synthetic(self.config, str(self))
        run = self.vae_run()
        return VaeBundle.load(run.path, run.config["model"], run.chosen_step)

    def params(self, target: Any) -> Any:
        """The EMA parameters of the checkpoint, sharded like `target`; an adapter's are merged into its base's.

        Raises UserError where the run or its base is missing or damaged, or the base no longer holds the step.
        """
        lora = from_mapping(LoraConfig, self.config.get("lora", {}))
        if not lora.rank:
            return restore_model(self.path, target, self.chosen_step)
        name, step = read_base(self.path)
        base = Run.open(check_base(self.path, self._find(name), step), step=step)
        factors = restore_adapter(self.path, lora, target, self.chosen_step)
        return merge_adapter(base.params(target), factors, lora)

    def sharded_params(self, mesh: Mesh) -> Any:
        """The EMA parameters of its denoiser, sharded over a mesh; those of experts as a tuple."""
        if self.stage == EXPERTS:
            return tuple(expert.params(self.sampled.abstract_params(mesh)) for expert in self.experts)
        return self.params(self.denoiser.abstract_params(mesh))

    def copy(self, out: Path) -> None:
        """Copies what using the run needs (model, record, latent statistics), unless `out` holds it already."""
        if (out / NAME).exists():
            return
        with replacing(out) as temporary:
            copy_model(self.path, temporary, self.chosen_step)
            for name in (NAME, STATS):
                if (self.path / name).exists():
                    (temporary / name).write_bytes((self.path / name).read_bytes())


def split_checkpoint(name: str) -> tuple[str, dict[str, Any]]:
    """The run that a text names, and the arguments of Run.at for the checkpoint that it names: RUN@500, RUN@best."""
    match = CHECKPOINT.fullmatch(name)
    if not match or storage_path(name).exists():
        return name, {}
    run, checkpoint = match.groups()
    return run, {"best": True} if checkpoint == "best" else {"step": int(checkpoint)}

"""The run directory: what was run, with which config and code, so that the folder explains itself."""

import datetime
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobile_video_jax.core.claim import check_holds_only
from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import read_json, write_json
from mobile_video_jax.core.revision import git_revision, versions
from mobile_video_jax.core.storage import remove_folder
from mobile_video_jax.train.checkpoint import newest_step
from mobile_video_jax.train.config import TrainConfig

NAME = "run.json"

# Keys that may change when a run is resumed: how long, how often it reports, what stops it, and on which devices and
# with which memory.
MAY_CHANGE = (
    *("steps", "log_every", "eval_every", "eval_batches", "sample_every", "sample_clips"),
    *("checkpoint_every", "keep_checkpoints", "keep_every", "profile", "profiler_port", "hang_seconds", "watch"),
    *("model.remat", "teacher_model.remat", "optimizer.accumulate", "optimizer.skip_steps", "auto", "xla_flags"),
    "splash_blocks",
    *("sample_prompts", "sample_text_encoder", "wandb"),
    *("mesh", "loader_threads", "loader_processes", "data", "mix_data", "init_from", "teacher"),
)


# Keys of the optimizer that --override may change: its state keeps its form.
OVERRIDABLE = (
    *("learning_rate", "adam_learning_rate", "schedule", "schedule_steps", "warmup"),
    *("weight_decay", "beta1", "beta2", "clip_norm", "ema_decay"),
)


def check_overrides(keys: Sequence[str]) -> None:
    """Raises UserError for a key that may not be changed in the middle of a run."""
    for key in keys:
        first, _, last = key.rpartition(".")
        if first not in ("optimizer", "optimizer.opponent") or last not in OVERRIDABLE:
            raise UserError(f"--override={key}: name optimizer.KEY with a KEY of {', '.join(OVERRIDABLE)}")


def check_run(run: Path, config: TrainConfig, overrides: Sequence[str] = ()) -> None:
    """Raises UserError where the folder holds a run of another config, naming the first key, or something else.

    A run without a checkpoint was not trained: it may be begun anew with any config. Keys in `overrides` may differ.
    """
    check_overrides(overrides)
    if (run / NAME).exists() and newest_step(run) is None:
        return
    if (run / NAME).exists():
        # A run of older code lacks the keys that came since, and was trained as their defaults say.
        old = _flat(plain(type(config)())) | _flat(read_json(run / NAME)["config"])
        _check_same(run, old, {key: value for key, value in _flat(plain(config)).items() if key not in overrides})
    else:
        check_holds_only(run, (), "run", flag="--workdir")


def schedule_steps(run: Path, config: TrainConfig) -> int:
    """The length of the learning rate's schedule: named, or as the run was begun, so that more steps do not move it."""
    if config.optimizer.schedule_steps or newest_step(run) is None:
        return config.optimizer.schedule_steps or config.steps
    recorded = read_run(run)["config"]
    return int(recorded.get("optimizer", {}).get("schedule_steps") or recorded.get("steps", config.steps))


def open_run(
    run: Path, config: TrainConfig, description: dict[str, Any], sampling: Mapping[str, Any] | None = None
) -> None:
    """Writes run.json into a new run directory, or one without a checkpoint, whose VAE goes: it may be another's."""
    if newest_step(run) is None:
        run.mkdir(parents=True, exist_ok=True)
        if (run / "vae").exists():
            remove_folder(run / "vae")
        write_run(run, config.stage, plain(config), description, sampling)


def record_overrides(run: Path, config: TrainConfig, step: int, overrides: Sequence[str]) -> None:
    """Writes the values of overridden keys into run.json, with the step from which they hold and the values before."""
    record, now = read_json(run / NAME), _flat(plain(config))
    for key in overrides:
        *parents, last = key.split(".")
        holder = functools.reduce(lambda values, name: values.setdefault(name, {}), parents, record["config"])
        before, holder[last] = holder.get(last), now[key]
        if before != now[key]:
            record.setdefault("overrides", []).append({"step": step, "key": key, "before": before, "value": now[key]})
    write_json(run / NAME, record)


def write_run(
    run: Path,
    stage: str,
    config: dict[str, Any],
    description: dict[str, Any],
    sampling: Mapping[str, Any] | None = None,
) -> None:
    """Writes run.json; `sampling` are the fields of models.sampling.Sampling, None for what is not sampled."""
    record = {
        "stage": stage,
        "description": description,
        **({"sampling": dict(sampling)} if sampling is not None else {}),
        "config": config,
        "revision": git_revision(),
        "versions": versions(),
        # Where paths of the config were meant, so that they are found again when the run moves with what it names.
        "folder": str(run.absolute()),
        "working_directory": os.getcwd(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_json(run / NAME, record)


def read_run(run: Path, stage: str | None = None) -> dict[str, Any]:
    """The content of run.json. Raises UserError where there is none or where the run is of another stage."""
    if not run.is_dir():
        raise UserError(f"{run} does not exist: name the folder of a training run")
    record: dict[str, Any] = read_json(run / NAME)
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict) or "stage" not in record:
        raise UserError(f"{run / NAME} is no record of a training run: name another folder")
    if stage is not None and record["stage"] != stage:
        raise UserError(f"{run} is a run of stage '{record['stage']}', not '{stage}': name another run")
    return record


def _check_same(run: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if not {key, key.split(".")[0]} & {*MAY_CHANGE, "optimizer.schedule_steps"} and old.get(key) != value:
            raise UserError(
                f"{run} was trained with {key}={old.get(key)!r}, this config has {value!r}: "
                f"use the old value or another --workdir{_overriding(key)}"
            )


def _overriding(key: str) -> str:
    is_overridable = key.startswith("optimizer.") and key.rpartition(".")[2] in OVERRIDABLE
    return f", or add --override={key} to change it from here on" if is_overridable else ""


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat

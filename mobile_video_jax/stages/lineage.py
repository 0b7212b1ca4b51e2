"""Lineage of a pruned network: the ancestor's block that each of its blocks was."""

from pathlib import Path
from typing import Any

from mobile_video_jax.core.files import read_json
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.models.run import Run, split_checkpoint

# The file of launch.prune's runs that names the teacher and the teacher's block that each block was.
PRUNED = "pruned.json"
BlockMap = tuple[int, ...]


def read_pruned(run: Run) -> dict[str, Any]:
    """The content of PRUNED, empty for a run that was not pruned."""
    path = run.path / PRUNED
    record: dict[str, Any] = read_json(path) if path.exists() else {}
    return record


def block_map_to(run: Run, ancestor: Run) -> BlockMap:
    """The ancestor's block that each block of a run's network was; () where the run does not descend from it.

    Training keeps the blocks, pruning removes some: the maps of repeated pruning are composed. A recovery's own map
    holds for the teacher that it names, also where the runs in between are gone.
    """
    config, pruned = run.config, read_pruned(run)
    blocks = tuple(range(len(run.denoiser.config.transformer.block_shapes)))
    if _is(run.path, ancestor):
        return blocks
    if config.get("block_map") and _is(_folder(run, config["teacher"]), ancestor):
        return tuple(config["block_map"])
    name = pruned.get("teacher") or config.get("init_from")
    if not name or not (parent := _folder(run, name)).exists():
        return ()
    older = block_map_to(Run.open(parent), ancestor)
    return tuple(older[i] for i in pruned.get("block_map", blocks)) if older else ()


def _folder(run: Run, name: str) -> Path:
    """The folder of a run that this one names, whatever checkpoint of it."""
    return storage_path(split_checkpoint(run.find(name))[0])


def _is(path: Path, run: Run) -> bool:
    return path.absolute() == run.path.absolute()

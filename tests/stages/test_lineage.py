"""The block map of a student and a teacher, through recovery and repeated pruning."""

import dataclasses
from pathlib import Path

import pytest

from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json
from mobile_video_jax.stages.config import DitTraining, RecoverTraining
from mobile_video_jax.stages.lineage import PRUNED
from mobile_video_jax.stages.recover import RecoverStage
from mobile_video_jax.train.run import write_run
from tests import tiny


def record(run: Path, depth: int, cls: type[DitTraining] = DitTraining, **changes) -> str:
    """A run without parameters: of a lineage the records are read alone."""
    model = dataclasses.replace(tiny.DIT, depth=depth)
    config = cls(**{**vars(tiny.dit_config(Path("data"), model=model)), "stage": "dit", **changes})
    write_run(run, config.stage, plain(config), {})
    return str(run)


def pruned(run: Path, teacher: str, block_map: tuple[int, ...]) -> str:
    name = record(run, len(block_map))
    write_json(run / PRUNED, {"teacher": teacher, "block_map": list(block_map)})
    return name


def recovered(run: Path, student: str, teacher: str = "") -> str:
    write_run(run, "recover", plain(recovery(student, teacher)), {})
    return str(run)


def recovery(student: str, teacher: str = "") -> RecoverTraining:
    base = vars(tiny.dit_config(Path("data")))
    config = RecoverTraining(**{**base, "stage": "recover", "init_from": student, "teacher": teacher})
    return RecoverStage.build(config).config


@pytest.fixture
def teacher(tmp_path) -> str:
    return record(tmp_path / "teacher", 6)


def test_a_second_recovery_keeps_the_map_of_the_first(teacher, tmp_path):
    student = pruned(tmp_path / "pruned", teacher, (0, 1, 3, 5))
    first = recovered(tmp_path / "first", student)
    assert recovery(first).block_map == recovery(first, teacher).block_map == (0, 1, 3, 5)
    second = recovered(tmp_path / "second", first)
    (tmp_path / "pruned" / "run.json").unlink()
    assert recovery(second).block_map == (0, 1, 3, 5)


def test_maps_of_repeated_pruning_are_composed_for_the_first_teacher(teacher, tmp_path):
    first = recovered(tmp_path / "first", pruned(tmp_path / "pruned", f"{teacher}@1", (0, 1, 3, 5)), teacher)
    again = pruned(tmp_path / "again", first, (1, 2))
    assert recovery(again).block_map == (1, 2)
    assert recovery(again, teacher).block_map == (1, 3)
    assert recovery(recovered(tmp_path / "last", again), teacher).block_map == (1, 3)


def test_another_teacher_drops_the_map(teacher, tmp_path):
    student = pruned(tmp_path / "pruned", teacher, (0, 1, 3, 5))
    other = record(tmp_path / "other", 8)
    assert recovery(student, other).block_map == ()
    assert RecoverStage(recovery(student, other)).block_map == (0, 2, 5, 7)
    taught_by_other = recovered(tmp_path / "recovered", student, other)
    assert recovery(taught_by_other, teacher).block_map == (0, 1, 3, 5)


@pytest.mark.parametrize("change", [{"compression": "t4_s8_c8"}, {"text_tokens": 16}, {"time_shift": 3.0}])
def test_a_teacher_of_other_latents_captions_or_times_is_refused(change, teacher, tmp_path):
    [key] = change
    other = record(tmp_path / "other", 6, **change)
    with pytest.raises(UserError, match=f"has {key}=.*: use runs on the same latents, captions and times"):
        recovery(pruned(tmp_path / "pruned", teacher, (0, 5)), other)

"""Which of a teacher's blocks each block of a student is compared with."""

import itertools

import numpy as np

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig


def matched_blocks(student: DitConfig, teacher: DitConfig, block_map: tuple[int, ...] = ()) -> tuple[int, ...]:
    """The teacher's block, by number from 0, for each of the student's blocks in order.

    An empty `block_map` spreads the student's evenly over the teacher's, first to first and last to last. Raises
    UserError where blocks cannot be compared: other widths, fewer blocks in the teacher, or a map that is not of one
    ascending number for each block.
    """
    ours, theirs = len(student.block_shapes), len(teacher.block_shapes)
    if student.width != teacher.width:
        raise UserError(
            f"a student of width {student.width} has features that a teacher's of width {teacher.width} cannot be "
            "compared with: use one width"
        )
    if ours > theirs:
        raise UserError(f"a student of {ours} blocks has no counterpart in a teacher of {theirs}: use a deeper teacher")
    if not block_map:
        return tuple(np.rint(np.linspace(theirs - 1 if ours == 1 else 0, theirs - 1, ours)).astype(int).tolist())
    ascending = all(a < b for a, b in itertools.pairwise(block_map))
    if len(block_map) != ours or not ascending or not 0 <= block_map[0] <= block_map[-1] < theirs:
        raise UserError(
            f"block_map {block_map} does not map {ours} blocks to {theirs}: "
            f"name {ours} ascending numbers from 0 to {theirs - 1}"
        )
    return block_map

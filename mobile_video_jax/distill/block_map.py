"""Map from a student's blocks to those teacher blocks whose features they learn to match."""

import itertools

import numpy as np

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig


def matched_blocks(student: DitConfig, teacher: DitConfig, block_map: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Index of the teacher's block for each of the student's blocks in order.

    An empty `block_map` spreads the student's blocks evenly over the teacher's, first to first and last to last. Raises
    UserError where blocks cannot be compared: different widths, fewer blocks in the teacher, or a map that does not
    have one ascending index per block.
    """
    depth, teacher_depth = len(student.block_shapes), len(teacher.block_shapes)
    if student.width != teacher.width:
        raise UserError(
            f"a student of width {student.width} has features that a teacher's of width {teacher.width} cannot be "
            "compared with: use one width"
        )
    if depth > teacher_depth:
        raise UserError(
            f"a student of {depth} blocks has no counterpart in a teacher of {teacher_depth}: use a deeper teacher"
        )
    if not block_map:
        last = teacher_depth - 1
        return tuple(np.rint(np.linspace(last if depth == 1 else 0, last, depth)).astype(int).tolist())
    ascending = all(a < b for a, b in itertools.pairwise(block_map))
    if len(block_map) != depth or not ascending or not 0 <= block_map[0] <= block_map[-1] < teacher_depth:
        raise UserError(
            f"block_map {block_map} does not map {depth} blocks to {teacher_depth}: "
            f"name {depth} ascending numbers from 0 to {teacher_depth - 1}"
        )
    return block_map

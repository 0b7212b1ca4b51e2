"""A table of what each sampling step computes of a transformer: a text per step with two letters per block.

The first letter is of the block's self-attention, the second of its FFN; cross-attention is always computed. Guidance
runs a clip with and without its caption, and both halves decide for themselves:

    .  computed
    c  the half with captions has the output of the step before, the other one is computed
    u  the half without captions has the output of the step before, the other one is computed
    b  both halves have the output of the step before
    -  left out: heads or hidden channels are none, and the bias of the output layer remains
    p  a stream's chunk has the output of the same step of the chunk before, both halves; the first frame, the chunk
       behind it, every second one from there on, and whole clips compute it
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import BlockShape
from mobile_video_jax.dit.masks import Masks

MODULES = ("self_attention", "ffn")  # of a block, in the order of the letters
COMPUTED, CAPTION, NULL, BOTH, OUT, CHUNK = LETTERS = ".cub-p"
# The letter without guidance, where every row has a caption.
UNGUIDED = {COMPUTED: COMPUTED, CAPTION: BOTH, NULL: COMPUTED, BOTH: BOTH, OUT: OUT, CHUNK: CHUNK}
# Solvers that evaluate the network once a step.
SOLVERS = ("euler", "dpmpp_2m", "unipc", "renoise")

StepTable = tuple[str, ...]


def check_step_table(table: Sequence[str], depth: int) -> None:
    """Raises UserError for a table of another depth, with unknown letters, or whose first step has nothing to reuse."""
    for i, step in enumerate(table):
        if len(step) != len(MODULES) * depth:
            blocks = len(step) / len(MODULES)
            raise UserError(f"step {i + 1} of the reuse table is for {blocks:g} blocks, the transformer has {depth}")
        if unknown := set(step) - set(LETTERS):
            raise UserError(f"step {i + 1} of the reuse table has the letter '{min(unknown)}': use {' '.join(LETTERS)}")
    if table and set(table[0]) - {COMPUTED, OUT, CHUNK}:
        raise UserError("the first step has no output of a step before: its letters are . - or p")


def letters(table: Sequence[str], *, guided: bool) -> Int[np.ndarray, "s l 2"]:
    """The index in LETTERS of each step, block and module of MODULES."""
    rows = table if guided else ["".join(UNGUIDED[letter] for letter in step) for step in table]
    indices = np.array([[LETTERS.index(letter) for letter in step] for step in rows], np.int32)
    return indices.reshape(len(table), -1, len(MODULES))


def across_chunks(table: Sequence[str]) -> bool:
    """True where a stream's chunks have outputs of the chunk before."""
    return any(CHUNK in step for step in table)


def of_whole_clips(table: Sequence[str]) -> StepTable:
    """The table where there is no chunk before."""
    return tuple(step.replace(CHUNK, COMPUTED) for step in table)


def computed_shares(table: Sequence[str], *, guided: bool) -> np.ndarray:
    """The share of a clip's rows that each step computes of each module [s l 2], in the mean over a stream's chunks."""
    shares = {COMPUTED: 1.0, CAPTION: 0.5, NULL: 0.5, BOTH: 0.0, OUT: 0.0, CHUNK: 0.5}
    of_letter = np.array([shares[letter] for letter in LETTERS])
    return np.asarray(of_letter[letters(table, guided=guided)])


def step_masks(table: Sequence[str], shapes: Sequence[BlockShape]) -> Masks:
    """The masks of each step [s l ...] for what it leaves out of blocks of these shapes."""
    computed = letters(table, guided=False) != LETTERS.index(OUT)

    def mask(kind: str, module: str) -> np.ndarray:
        counts = np.array([getattr(shape, kind) for shape in shapes])
        units = np.arange(counts.max()) < counts[:, None]
        return np.asarray(units & computed[:, :, MODULES.index(module), None], np.float32)

    return Masks(heads=mask("heads", "self_attention"), ffn=mask("ffn", "ffn"))

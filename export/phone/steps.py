"""What the functions of a transformer's packages compute, where its sampling steps do without modules.

A step table (dit/step_table.py) becomes one function for each distinct step. A module's output that the next step has
is an output kept_NAME_BLOCK; a function that does not compute it takes past_NAME_BLOCK, the last one that was kept. A
stream has functions of its own for its first frame and for later chunks, of which every second may have outputs of the
same step of the chunk before.
"""

import dataclasses
from collections.abc import Sequence

from export.part import FIRST_FUNCTION
from export.phone.attention.call import FIRST, NEXT
from mobile_video_jax.dit.replaced import Key
from mobile_video_jax.dit.step_table import BOTH, CHUNK, COMPUTED, MODULES, OUT, UNGUIDED

REUSING = "reusing"  # a stream's chunk behind one that left it outputs


@dataclasses.dataclass(frozen=True)
class PhoneStep:
    """What one function computes of each module, without guidance, and which outputs it keeps for the next step.

    `letters` is empty where all is computed; it has two letters per block, of COMPUTED, BOTH (reused) and OUT.
    """

    letters: str = ""
    kept: frozenset[Key] = frozenset()

    def letter(self, block: int, name: str) -> str:
        """What is done for a module."""
        return self.letters[len(MODULES) * block + MODULES.index(name)] if self.letters else COMPUTED

    def past(self, first: int, last: int) -> tuple[str, ...]:
        """The features of blocks `first` to `last` - 1 that the function takes."""
        reused = [(i, name) for i in range(first, last) for name in MODULES if self.letter(i, name) == BOTH]
        return tuple(feature("past", *key) for key in reused)

    def keeps(self, first: int, last: int) -> tuple[str, ...]:
        """The features of blocks `first` to `last` - 1 that the function gives."""
        return tuple(feature("kept", *key) for key in sorted(self.kept) if first <= key[0] < last)


WHOLE = PhoneStep()
NamedSteps = tuple[tuple[str, PhoneStep], ...]  # the function of each step, and what it computes


def feature(when: str, block: int, name: str) -> str:
    """The name of a module's output: when is `kept` or `past`."""
    return f"{when}_{name}_{block}"


def phone_steps(table: Sequence[str], chunk: str = "") -> tuple[PhoneStep, ...]:
    """Each step of a table as an app takes it, which has no guidance.

    `chunk` is NEXT for a stream's chunk that leaves its outputs to the one behind it, which is REUSING.
    """
    rows: list[str] = []
    for row in table:
        letters = [UNGUIDED[letter] for letter in row]
        if rows:  # what was left out before is the same when left out again
            letters = [OUT if (x, y) == (BOTH, OUT) else x for x, y in zip(letters, rows[-1], strict=True)]
        rows.append("".join(letters))
    left = [_places(row, CHUNK) if chunk == NEXT else frozenset[Key]() for row in rows]
    rows = [row.replace(CHUNK, BOTH if chunk == REUSING else COMPUTED) for row in rows]
    following = [*rows[1:], COMPUTED * len(rows[0])] if rows else []
    return tuple(
        PhoneStep(row, keys | (_places(row, COMPUTED) & _places(after, BOTH)))
        for row, after, keys in zip(rows, following, left, strict=True)
    )


def stream_functions(table: Sequence[str]) -> dict[str, NamedSteps]:
    """The functions of a stream's steps: of its FIRST frame, and of later chunks in turn, NEXT and REUSING."""
    steps = {chunk: phone_steps(table, chunk) for chunk in (FIRST, NEXT, REUSING)}
    later = steps[NEXT] + steps[REUSING]
    calls = {FIRST: (FIRST, steps[FIRST]), NEXT: (NEXT, later), REUSING: (NEXT, later)}
    return {
        chunk: tuple((f"{calls[chunk][0]}_step_{calls[chunk][1].index(step) + 1}", step) for step in each)
        for chunk, each in steps.items()
    }


def step_functions(table: Sequence[str]) -> tuple[str, ...]:
    """The function of each step, named after the first step that calls it; the only one has the usual name."""
    steps = phone_steps(table)
    alike = len(set(steps)) == 1
    return tuple(FIRST_FUNCTION if alike else f"step_{steps.index(step) + 1}" for step in steps)


def _places(row: str, letter: str) -> frozenset[Key]:
    """The modules with a letter."""
    places = (divmod(i, len(MODULES)) for i in range(len(row)) if row[i] == letter)
    return frozenset((block, MODULES[module]) for block, module in places)

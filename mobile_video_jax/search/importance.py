"""Importance: how much the held-out loss rises when one block becomes another choice, with its variant in place."""

import dataclasses

from mobile_video_jax.metrics.interval import Score, mean_score
from mobile_video_jax.metrics.paired import Comparison, compare
from mobile_video_jax.search.losses import LayoutLosses, swapped
from mobile_video_jax.search.space import Choice, Space


@dataclasses.dataclass(frozen=True)
class Importance:
    """The trained network's loss, and for each position and choice the rise of the loss over the same clips."""

    trained: Score
    rises: tuple[dict[Choice, Comparison], ...]

    @property
    def means(self) -> list[dict[Choice, float]]:
        """The mean rises, which a search adds up."""
        return [{choice: rise.difference for choice, rise in here.items()} for here in self.rises]


def importance(space: Space, losses: LayoutLosses, seed: int = 0) -> Importance:
    """The importance of every choice of a space at every position, with 95 % intervals over clips in pairs."""
    base = losses.network.trained(space)
    trained = losses.clips(base)
    rises = tuple(
        {choice: compare(trained, losses.clips(swapped(base, i, choice)), seed) for choice in choices}
        for i, choices in enumerate(space.positions)
    )
    return Importance(mean_score(trained, seed), rises)

"""Small clips, and a velocity whose solution is known."""

import jax

from tests.nets import normal

SHAPE = (2, 2, 2, 2, 3)


def clips(seed: int) -> jax.Array:
    return normal(seed, *SHAPE)


def exact_velocity(mean: float, std: float):
    """The velocity of the path between N(mean, std^2) and N(0, 1): noise ends at mean + std noise. Any array type."""

    def velocity(x, t):
        t = t[:, None, None, None, None]
        variance = (1 - t) ** 2 * std**2 + t**2
        return -mean + (t - (1 - t) * std**2) / variance * (x - (1 - t) * mean)

    return velocity

"""The weight that brings two losses' gradients in decoded clips to one size."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import Scalar, Video

MOST = 1e4  # where the second loss has hardly a gradient


def adaptive_weight(first: Callable[[Video], Scalar], second: Callable[[Video], Scalar], decoded: Video) -> Scalar:
    """|gradient of the first loss| / |gradient of the second| in the decoded clips, a constant, at most MOST.

    VQGAN (arXiv 2012.09841) takes both in the kernel of the decoder's last layer; the clips are what that layer makes,
    and the first loss needs no pass through a network for them.
    """
    decoded = jax.lax.stop_gradient(decoded)
    norms = [jnp.linalg.norm(jax.grad(loss)(decoded)) for loss in (first, second)]
    return jnp.minimum(norms[0] / (norms[1] + 1e-12), MOST)

"""Rematerialisation policies by name: values that a block saves for the backward pass."""

from collections.abc import Callable

import flax.linen as nn
import jax

from mobile_video_jax.parallel.config import Remat

# The name under which attention kernels save their output and the other residuals of their backward pass.
SAVED_ATTENTION = "attention"

# none: save everything; dots: save matrix products and attention kernels' residuals; full: save the block's input only.
POLICIES: dict[Remat, Callable[..., bool] | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(SAVED_ATTENTION),
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def checkpointed(block: type[nn.Module], policy: Remat, *, scanned: bool = False) -> type[nn.Module]:
    """Wraps a module class with the named policy.

    Inside a scan XLA cannot merge the two forward passes, so the costly guard against merging is switched off.
    """
    if POLICIES[policy] is None:
        return block
    return nn.remat(block, policy=POLICIES[policy], prevent_cse=not scanned)

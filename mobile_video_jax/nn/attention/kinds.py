"""The kinds of self-attention that a transformer's blocks may have, by name: the one table of them."""

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.nn.attention.chunked import ChunkedAttention
from mobile_video_jax.nn.attention.full import FullAttention, SelfAttention
from mobile_video_jax.nn.attention.lcha import LinearConvAttention
from mobile_video_jax.nn.attention.ssa import StridedAttention

FULL = "full"

KINDS: dict[str, type[SelfAttention]] = {
    FULL: FullAttention,
    "lcha": LinearConvAttention,
    "ssa": StridedAttention,
    "chunked": ChunkedAttention,
}


def check_kind(kind: str) -> None:
    """Raises UserError for an unknown kind."""
    if kind not in KINDS:
        raise UserError(f"attention kind '{kind}' is unknown: use one of {', '.join(KINDS)}")

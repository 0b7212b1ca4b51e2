"""The kinds of self-attention that a transformer's blocks may have, by name: the one table of them."""

from mobile_video_jax.nn.attention.assa import AdaptiveSparseAttention
from mobile_video_jax.nn.attention.chunked import ChunkedAttention
from mobile_video_jax.nn.attention.config import ASSA, CHUNKED, FULL, LCHA, LINEAR, SSA
from mobile_video_jax.nn.attention.full import FullAttention, SelfAttention
from mobile_video_jax.nn.attention.lcha import LinearAttention, LinearConvAttention
from mobile_video_jax.nn.attention.ssa import StridedAttention

KINDS: dict[str, type[SelfAttention]] = {
    FULL: FullAttention,
    LINEAR: LinearAttention,
    LCHA: LinearConvAttention,
    SSA: StridedAttention,
    CHUNKED: ChunkedAttention,
    ASSA: AdaptiveSparseAttention,
}

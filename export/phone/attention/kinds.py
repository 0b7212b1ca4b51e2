"""The phone's form of each kind of self-attention: a line for each of nn.attention.kinds."""

from typing import Any

from export.phone.attention.assa import PhoneAdaptiveSparse
from export.phone.attention.call import Call
from export.phone.attention.chunked import PhoneChunked
from export.phone.attention.lcha import PhoneLinearConv
from export.phone.attention.linear import PhoneLinear
from export.phone.attention.window import PhoneStridedAttention, PhoneWindowAttention
from mobile_video_jax.nn.attention.config import ASSA, CHUNKED, FULL, LCHA, SSA

PhoneKind = PhoneLinear | PhoneWindowAttention | PhoneAdaptiveSparse
KINDS: dict[str, type[PhoneKind]] = {
    FULL: PhoneWindowAttention,
    LCHA: PhoneLinearConv,
    SSA: PhoneStridedAttention,
    CHUNKED: PhoneChunked,
    ASSA: PhoneAdaptiveSparse,
}


def phone_attention(attention: Any, kind: str, call: Call) -> PhoneKind:
    """The form of a kind for one call."""
    return KINDS[kind](attention, call)

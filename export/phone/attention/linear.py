"""Linear attention of a call, which lcha mixes with a convolution and chunked with softmax.

Sums are carried as means over frames, which do not grow with a stream, and turned back to the next call's positions.
Features of keys are multiplied by KEY_SCALE, so that sums over a clip's tokens stay far from fp16's end.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from export.phone.attention.call import Call, Heads, State, packed
from export.phone.layers import PhoneHeads
from export.phone.turn import Rope, Turn, rotate

KEY_SCALE = 1 / 64
EPS = 1e-4  # least denominator, of a mean over tokens; in fp16 a smaller one would be subnormal

Sums = tuple[Float[Tensor, "h d e"], Float[Tensor, "h d 1"]]  # S and Z, as sums over frames of means over their tokens


class PhoneLinear(PhoneHeads):
    """The part that both kinds share: features, and their sums over frames."""

    past_frames = 0  # whose keys and values a stream carries

    def __init__(self, attention: Any, call: Call):
        super().__init__(attention)
        self.call, self.tokens = call, call.tokens
        self.q_scale, self.k_scale = (Turn(scale, None, 1) for scale in self.scales(attention))
        self.q_features = self._features(attention.q_features, self.head_dim**0.5)  # queries have the logits' factor
        self.k_features = self._features(attention.k_features, 1.0, KEY_SCALE)
        before = self.past_frames if call.continues else 0
        self._register("", call.rope(-before, before + call.grid[0], 1))
        if call.streams:
            # From this call's positions to those of the next one.
            self._register("back_", tuple(part[:, :1] for part in call.rope(-call.grid[0], 1, 1)))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the state's tensors."""
        if not self.call.streams:
            return {}
        heads, size = self.heads, self.head_dim
        past = (1, heads * size, 1, self.past_frames * self.tokens)
        sums: dict[str, tuple[int, ...]] = {"values": (heads, size, 1, size), "weights": (heads, size, 1, 1)}
        return sums | (dict.fromkeys(("k", "v"), past) if self.past_frames else {})

    def _register(self, prefix: str, rope: tuple[Tensor, ...]) -> None:
        for name, table in zip(("cos", "sin"), rope, strict=True):
            self.register_buffer(prefix + name, table.transpose(1, 2)[:, :, None])

    def _rope(self, prefix: str = "", start: int = 0, stop: int | None = None) -> Rope:
        span = slice(start, stop)
        return self.get_buffer(f"{prefix}cos")[..., span], self.get_buffer(f"{prefix}sin")[..., span]

    def _features(self, features: Any, factor: float, scale: float = 1.0) -> nn.Conv2d:
        """relu(x A + b) of all heads as a grouped convolution; the relu comes after it."""
        heads, size, _ = features.matrices.shape
        conv = nn.Conv2d(heads * size, heads * size, 1, groups=heads, device="meta")
        weight = features.matrices.detach().transpose(1, 2).reshape(heads * size, size, 1, 1)
        conv.weight = nn.Parameter(weight * (factor * scale), requires_grad=False)
        conv.bias = nn.Parameter(features.bias.detach().reshape(-1) * scale, requires_grad=False)
        return conv

    def _mapped(self, features: nn.Conv2d, x: Heads) -> Heads:
        return self._heads(functional.relu(features(packed(x))))

    def _sums(self, plain: Tensor, turned: Tensor, v: Tensor) -> Sums:
        """The sums of these tokens [h, d, 1, s]."""
        share = 1 / (KEY_SCALE * self.tokens)
        values = torch.matmul(turned[:, :, 0], v[:, :, 0].transpose(1, 2)) * share
        return values, plain[:, :, 0].sum(2, keepdim=True) * share

    def _far(self, sums: Sums, plain: Tensor, turned: Tensor) -> tuple[Tensor, Tensor]:
        """phi(q)^T S and phi(q)^T Z of queries [h, d, 1, s]."""
        values, weights = (x.transpose(1, 2) for x in sums)
        return torch.matmul(values, turned[:, :, 0])[:, :, None], torch.matmul(weights, plain[:, :, 0])[:, :, None]

    def _carried(self, past: State) -> Sums:
        return past["values"][:, :, 0], past["weights"][:, :, 0]

    def _state(self, sums: Sums) -> State:
        """Means over frames as the next call takes them."""
        values, weights = sums
        return {"values": rotate(values[:, :, None], self._rope("back_")), "weights": weights[:, :, None]}

"""A text encoder with the phone's inputs and outputs."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from export.pytorch.t5 import T5Text


class PhoneText(nn.Module):
    """Maps ids and their mask to states as the transformer's package takes them, zero where there is no token.

    With `padding` the encoder masks nothing, and so many zeros are appended to the ids: LTX-Video's T5 attends to all
    padding up to its own length.
    """

    inputs, outputs = ("ids", "text_mask"), ("text",)

    def __init__(self, encoder: nn.Module, padding: int | None = None):
        super().__init__()
        self.encoder, self.padding = encoder, padding

    def folded(self, tokens: int) -> int:
        """The numbers that a package for so many ids holds beside the weights, as conversion computes them."""
        return self.encoder.folded(tokens + (self.padding or 0)) if isinstance(self.encoder, T5Text) else 0

    def forward(self, ids: Int[Tensor, "b s"], text_mask: Float[Tensor, "b 1 1 s"]) -> Float[Tensor, "b width 1 s"]:
        if self.padding is None:
            states: Tensor = self.encoder(ids, text_mask[:, 0, 0])
        else:
            padded = torch.cat([ids, ids.new_zeros(1, self.padding)], dim=1) if self.padding else ids
            states = self.encoder(padded)[:, : -self.padding or None]
        return states.transpose(1, 2)[:, :, None] * text_mask

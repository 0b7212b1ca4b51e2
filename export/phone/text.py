"""Text encoders as the phone takes them."""

import torch
from torch import Tensor, nn


class PhoneText(nn.Module):
    """An encoder as the transformer's package takes its states: [1, width, 1, s], zero where there is no token.

    Takes ids [1, s] and the mask [1, 1, 1, s] of ones and zeros. With `seen`, nothing is masked inside, and so many
    zeros follow the ids there: LTX-Video's T5 attends to all padding up to its own length.
    """

    inputs, outputs = ("ids", "text_mask"), ("text",)

    def __init__(self, encoder: nn.Module, seen: int | None = None):
        super().__init__()
        self.encoder, self.seen = encoder, seen

    def forward(self, ids: Tensor, text_mask: Tensor) -> Tensor:
        if self.seen is None:
            states = self.encoder(ids, text_mask[:, 0, 0])
        else:
            followed = torch.cat([ids, ids.new_zeros(1, self.seen)], dim=1) if self.seen else ids
            states = self.encoder(followed)[:, : -self.seen or None]
        return states.transpose(1, 2)[:, :, None] * text_mask

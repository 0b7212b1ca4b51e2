"""Names for the shapes of PyTorch tensors that cross module borders.

Axes: b batch, t frames, h rows, w columns, c channels, n tokens, s text tokens, d width. The mirrors are
channels-last, as JAX is; the phone's modules take channels first, and one clip at a time.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Video = Float[Tensor, "b t h w 3"]
Latents = Float[Tensor, "b lt lh lw c"]
Features = Float[Tensor, "b t h w c"]
Tokens = Float[Tensor, "b n d"]
TokenIds = Int[Tensor, "b s"]
TextStates = Float[Tensor, "b s e"]
TextMask = Bool[Tensor, "b s"]  # True for a token
FloatMask = Float[Tensor, "b s"]  # 1 for a token, 0 for padding

PhoneSequence = Float[Tensor, "1 c 1 n"]
PhoneMask = Float[Tensor, "1 1 1 s"]  # 1 for a token, 0 for padding
PhoneFrames = Float[Tensor, "t c h w"]
PhoneVideo = Float[Tensor, "t 3 h w"]

"""Names for the array shapes that cross module borders; everything is channels-last.

Axes: b batch, t frames, h rows, w columns, c channels, n tokens, s text tokens, d width.
"""

import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, PRNGKeyArray, UInt8

Video = Float[Array, "b t h w 3"]
Latents = Float[Array, "b lt lh lw c"]
Tokens = Float[Array, "b n d"]
TextStates = Float[Array, "b s e"]
TextMask = Bool[Array, "b s"]
Times = Float[Array, "b"]
FrameTimes = Float[Array, "b *lt"]  # a time for each clip, or for each latent frame
LatentMask = Bool[Array, "b lt lh lw"]
# Features of a clip's first frame at each level of a VAE's encoder, from high resolution to low.
ImageFeatures = tuple[Float[Array, "b 1 _ _ _"], ...]
Scalar = Float[Array, ""]
Rng = PRNGKeyArray

Frames = UInt8[np.ndarray, "t h w 3"]
Clips = UInt8[np.ndarray, "b t h w 3"]
TokenIds = Int[Array, "b s"]
Channels = Float32[np.ndarray, "c"]

"""Settings that layers of all networks share."""

from typing import Literal

Dtype = Literal["float32", "bfloat16", "float16"]  # of matrix products and activations; parameters are float32

# fp16's smallest normal number is 6.1e-5; phones may flush anything below it to zero, so eps stays above.
EPS = 1e-4

# LTX-Video's positions are fractions of 20 seconds and of 2048 pixels.
MAX_POSITION = (20.0, 2048.0, 2048.0)

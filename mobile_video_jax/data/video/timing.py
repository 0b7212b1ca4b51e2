"""When the decoded frames of a video are shown, and which of them a steady frame rate takes."""

import numpy as np
from jaxtyping import Float64, Int32


def resampled(starts: Float64[np.ndarray, "n"], end: float, fps: float) -> Int32[np.ndarray, "m"]:
    """The frame that is on view in the middle of each 1 / fps seconds, from the first frame to the `end` of the last.

    `starts` are the seconds at which frames come on view, in rising order. Frames are repeated or left out, so that
    whatever moves keeps its speed.
    """
    count = max(round((end - starts[0]) * fps), 1)
    middles = starts[0] + (np.arange(count) + 0.5) / fps
    indices: np.ndarray = (np.searchsorted(starts, middles, side="right") - 1).astype(np.int32)
    return indices

"""Cuts between scenes, found in a video's frames by PySceneDetect's detectors (the extra `scenes`)."""

import numpy as np
from jaxtyping import Int, UInt8

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError

LONGER_SIDE = 128  # pixels of the frames that detectors compare; they need no more
ANY_RATE = 25.0  # PySceneDetect counts frames in times


def check_detector() -> None:
    """Raises UserError where PySceneDetect is not installed."""
    try:
        import scenedetect  # noqa: F401
    except ImportError:
        raise UserError("PySceneDetect is missing: pip install -e '.[scenes]', or leave out --scenes") from None


class CutDetector:
    """Finds cuts in frames that come one after the other.

    A cut is what changes a frame much, or much more than its neighbours change: fast motion may pass for a cut in
    favour of clips that hold none. Scenes may be of any length.
    """

    def __init__(self) -> None:
        from scenedetect.detectors import AdaptiveDetector, ContentDetector

        self._detectors = [ContentDetector(min_scene_len=0), AdaptiveDetector(min_scene_len=0)]
        self._frames, self._cuts = 0, set[int]()

    @property
    def cuts(self) -> list[int]:
        """The frames that begin a scene, but the first frame."""
        return sorted(self._cuts)

    def add(self, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Takes the next frame, RGB."""
        from scenedetect import FrameTimecode

        time, bgr = FrameTimecode(self._frames, fps=ANY_RATE), np.ascontiguousarray(pixels[..., ::-1])
        for detector in self._detectors:
            self._cuts |= {cut.frame_num for cut in detector.process_frame(time, bgr)}
        self._frames += 1


def compared_size(height: int, width: int) -> ClipShape:
    """The size of the frames that are compared: a small one of nearly the same aspect."""
    scale = min(LONGER_SIDE / max(height, width), 1)
    return ClipShape(1, max(round(height * scale), 1), max(round(width * scale), 1))


def scene_starts(cuts: list[int], shown: Int[np.ndarray, "m"]) -> Int[np.ndarray, "s"]:
    """The frames of a video that begin a scene, the first 0, where frame i shows decoded frame `shown[i]`."""
    if not cuts:
        return np.zeros(1, np.int32)
    starts = np.searchsorted(shown, cuts)
    return np.unique(np.append(0, starts[starts < len(shown)])).astype(np.int32)

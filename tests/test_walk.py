"""The README's walk from a folder of own videos to Core ML packages, on 20 videos, as its reader types it.

Sizes, clips and steps are those of two CPU cores. A command that refuses is repeated with the flags that its message
names, and with no others.
"""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from launch.mvj import COMMANDS
from tests.commands import ROOT, Finished, run
from tests.data.videos import write_video

SMALLER = {
    "configs/vae.py:mobile_t8_s32_c128": "vae:tiny_t4_s8_c16",
    "configs/dit.py:small": "dit:tiny",
    "configs/recover.py:mobile": "recover:tiny",
    "configs/distill.py:mobile": "distill:tiny",
    "49x384x512": "9x32x32",
}
SHORTER = {"vae": 60, "dit": 60, "recovered": 20, "distilled": 20}  # steps by the run's folder
MOST_REPEATS = 4


def steps_of_the_readme() -> list[list[str]]:
    """Module and arguments of each command of the README's steps 1 to 9, smaller."""
    [block] = re.findall(r"```sh\n(# 1\. Check every file.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert re.findall(r"^# (\d)\.", block, re.M) == list("123456789")
    for large, small in SMALLER.items():
        block = block.replace(large, small)
    lines = [line for line in block.replace("\\\n", " ").splitlines() if line.startswith("python -m ")]
    return [shlex.split(line)[2:] for line in lines]


def shorter(arguments: list[str]) -> list[str]:
    names = [name for name in SHORTER if f"--workdir=runs/{name}" in arguments]
    return [*arguments, *(f"--config.steps={SHORTER[name]}" for name in names)]


def own_videos(folder: Path) -> None:
    """20 videos of 60 frames in which a bright square moves over a coloured ground, with captions."""
    folder.mkdir()
    rng, lines = np.random.default_rng(0), []
    for number in range(20):
        frames = np.empty((60, 48, 64, 3), np.uint8)
        frames[:] = rng.integers(0, 120, 3)
        row, way = rng.integers(4, 30), rng.choice([-1, 1])
        for i, frame in enumerate(frames):
            column = (way * i) % 50
            frame[row : row + 14, column : column + 14] = 250 - number
        write_video(folder / f"{number:02}.mp4", frames)
        lines.append(
            {"file": f"{number:02}.mp4", "caption": f"a square moves {'left' if way < 0 else 'right'}, take {number}"}
        )
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def advised(message: str) -> list[str]:
    """The flag that a message names: with its value, or to be lowered to the number of clips that there are."""
    if named := re.search(r"--[\w.]+=[\w/-]+", message):
        return [named[0]]
    lowered = re.search(r"(\d+) (?:clips|train records|of the \d+ clips).*lower (--config\.\w+)", message)
    return [f"{lowered[2]}={lowered[1]}"] if lowered else []


def as_its_messages_say(module: str, arguments: list[str], folder: Path) -> Finished:
    """Runs a command, again with the flags of its message while it refuses."""
    for _ in range(MOST_REPEATS):
        done = run(module, *arguments, folder=folder, timeout=3600)
        flags = advised(done.err.splitlines()[-1]) if done.status == 2 else []
        if not flags:
            return done
        arguments = [*arguments, *flags]
    return done


@pytest.mark.slow
def test_twenty_own_videos_become_packages_by_the_readme_and_what_messages_name(tmp_path):
    own_videos(tmp_path / "my_videos")
    for module, *arguments in steps_of_the_readme():
        assert module in COMMANDS.values()
        done = as_its_messages_say(module, shorter(arguments), tmp_path)
        assert done.status == 0 and "Traceback" not in done.err, (module, arguments, done.err[-3000:])
        assert isinstance(json.loads(done.out.splitlines()[-1]), dict)
    assert json.loads((tmp_path / "data/clips/manifest.json").read_text())["splits"]["test"] > 0
    assert list((tmp_path / "samples").glob("*.mp4")) and list((tmp_path / "export").glob("*.mlpackage"))
    assert (tmp_path / "compare" / "report.html").exists()

import json
import signal
import subprocess
import sys
import time

import pytest

from mobile_video_jax.data.dataset import read_manifest
from tests import commands
from tests.data.videos import video_folder, write_captions


def run(*arguments):
    done = commands.run("launch.prepare_data", *arguments)
    return done.status, done.out.splitlines(), done.err.splitlines()


def test_a_folder_of_videos(tmp_path):
    folder = video_folder(tmp_path / "videos", 4)
    (folder / "broken.mp4").write_bytes(b"")
    out = tmp_path / "out"
    status, stdout, stderr = run(f"--source={folder}", f"--out={out}", "--validation=0.2", "--min_frames=9")
    assert status == 0
    assert stdout[0] == str(out)
    assert json.loads(stdout[1]) == {
        "accepted": 4,
        "rejected": 1,
        "shards": json.loads(stdout[1])["shards"],
        "out": str(out),
    }
    assert len(stdout) == 2
    assert "checking videos" in stderr[0]
    assert read_manifest(out)["options"] == {"validation": 0.2, "test": 0.1, "min_frames": 9, "max_rejected": 0.5}


def test_shapes_of_a_small_world(tmp_path):
    arguments = ["--source=moving_shapes", f"--out={tmp_path / 'out'}", "--clip=5x32x32", "--seed=3"]
    arguments += ["--train=6", "--validation=2", "--test=0", "--counts=1,2", "--colours=red,blue", "--shapes=circle"]
    status, stdout, _ = run(*arguments, "--motions=left,still", "--backgrounds=dark")
    assert status == 0
    assert json.loads(stdout[-1])["accepted"] == 8
    manifest = read_manifest(tmp_path / "out")
    assert manifest["clip"] == "5x32x32"
    assert manifest["world"]["counts"] == [1, 2]
    assert manifest["world"]["colours"] == ["red", "blue"]
    assert manifest["options"]["seed"] == 3


def test_help():
    status, stdout, stderr = run("--help")
    assert status == 0
    assert stdout[0].startswith("Prepares a data set: python -m launch.prepare_data --source=DIR_OR_NAME --out=DIR")
    assert stderr == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source={root}/none", "--out={root}/out"], "is neither a folder nor one of moving_shapes, sample_clips"),
        (["--source={root}", "--out={root}/out"], "has no captions.jsonl: write a line"),
        (["--source={root}/videos", "--out={root}/out"], "read {root}/out.rejected.jsonl"),
        (["--source={root}", "--out={root}/out", "--clip=5x32x32"], "has no option clip; it has fps, max_rejected, "),
        (
            ["--source={root}", "--out={root}/out", "--shard_megabytes=9"],
            "--shard_megabytes is for Beam: give --runner",
        ),
        (["--source=moving_shapes", "--out={root}/out", "--clip=5x32"], "clip '5x32' is not of the form"),
        (["--source=moving_shapes", "--out={root}/out", "--train=0"], "--train=0"),
        (["--source=moving_shapes", "--out={root}/out", "--test=0.5"], "--test=0.5 is no number of clips"),
        (["--source=moving_shapes", "--out={root}/out", "--colours=beige"], "world.colours[0]=beige: use red or green"),
        (
            ["--source=moving_shapes", "--out={root}/out", "--counts=one"],
            "world.counts[0]=one: use a whole number from 1 to 3",
        ),
        (["--source=sample_clips", "--out={root}/videos/captions.jsonl"], "is no data set: name another --out"),
        (["--source=sample_clips", "--out={root}/videos/captions.jsonl/x"], "is a file or lies in one: name a folder"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, words):
    folder = video_folder(tmp_path / "videos", 1)
    write_captions(folder, "none.mp4")
    status, stdout, stderr = run(*(argument.format(root=tmp_path) for argument in arguments))
    assert status == 2
    assert stdout == []
    assert stderr[-1].startswith("error: ")
    assert words.format(root=tmp_path) in stderr[-1]
    assert not any("Traceback" in line for line in stderr)
    assert not (tmp_path / "out").exists()


def test_a_disk_that_takes_no_more(tmp_path):
    limited = ["bash", "-c", 'ulimit -f 100; exec "$@"', "bash", sys.executable, "-m", "launch.prepare_data"]
    arguments = ["--source=moving_shapes", f"--out={tmp_path / 'out'}", "--train=200"]
    done = subprocess.run([*limited, *arguments], cwd=commands.ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: [Errno 27] File too large" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_interruption_leaves_nothing(tmp_path):
    arguments = ["--source=moving_shapes", f"--out={tmp_path / 'out'}", "--train=1000000"]
    started = commands.start("launch.prepare_data", *arguments)
    while not list(tmp_path.glob(".out.*/moving_shapes/*")):
        assert started.process.is_alive()
        time.sleep(0.1)
    started.signal(signal.SIGINT)
    assert started.finish(30).status == 130
    assert list(tmp_path.iterdir()) == []

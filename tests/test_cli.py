import json

import pytest

from tests import commands

COMMAND = '''"""Does nothing much.

A second line of help.
"""
import errno, os, shutil, signal, time
from pathlib import Path
from absl import flags, logging
from ml_collections import config_flags
from mobile_video_jax import cli
from mobile_video_jax.core.errors import Stopped, UserError

class Lost:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

CONFIG = config_flags.DEFINE_config_file("config", None, "The config.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where to.", required=True)
FAIL = flags.DEFINE_string("fail", "", "How to fail.")

def main():
    logging.info("chatter")
    if FAIL.value == "user":
        raise UserError("first line\\n  second line")
    if FAIL.value == "bug":
        raise ZeroDivisionError("a bug")
    if FAIL.value == "ctrl-c":
        os.kill(os.getpid(), signal.SIGINT)
    if FAIL.value == "ctrl-c in a callback":
        Lost()
        time.sleep(60)
    if FAIL.value == "full":
        raise RuntimeError("No space left on device (os error 28)")
    if FAIL.value == "copy":
        raise shutil.Error([("/a", "/b", "[Errno 28] No space left on device: '/b'")])
    if FAIL.value == "stopped":
        raise Stopped("step 3 is saved", 143)
    if FAIL.value:
        raise OSError(getattr(errno, FAIL.value), "refused", "/the/file")
    cli.finish(Path(WORKDIR.value), CONFIG.value.to_dict())

if __name__ == "__main__":
    cli.run(main)
'''
CONFIG = """
from ml_collections import ConfigDict
from mobile_video_jax.core.errors import UserError

def get_config(variant="small"):
    if variant == "typo":
        raise ValueError("width: 7 is odd")
    if variant == "broken":
        undefined_name
    if variant not in ("small", "large"):
        raise UserError(f"there is no variant {variant}: use small or large")
    return ConfigDict({"steps": 3, "rate": 0.1, "nest": {"width": 8 if variant == "small" else 64}}).lock()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("command")
    (folder / "command.py").write_text(COMMAND)
    (folder / "config.py").write_text(CONFIG)
    return folder


def run(folder, *arguments):
    return commands.run("command", *arguments, folder=folder)


def test_the_path_and_one_line_of_json_close_stdout(folder):
    done = run(folder, "--workdir=runs/a", "--config=config.py:large", "--config.steps=7", "--config.nest.width=9")
    assert done.status == 0
    path, summary = done.out.splitlines()
    assert path == "runs/a"
    assert json.loads(summary) == {"steps": 7, "rate": 0.1, "nest": {"width": 9}}
    assert done.err == ""


def test_help_tells_of_this_command_alone(folder):
    done = run(folder, "--help")
    assert done.status == 0
    assert done.out.startswith("Does nothing much.\n\nA second line of help.")
    assert "--workdir: Where to." in done.out
    assert "--pdb" not in done.out
    assert done.err == ""


GOOD = ("--workdir=a", "--config=config.py")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((*GOOD, "--wrkdir=b"), "Unknown command line flag 'wrkdir'. Did you mean: workdir ?; see --help"),
        (("--config=config.py",), "--workdir is missing; see --help"),
        (("--workdir=a",), "--config is missing; see --help"),
        ((*GOOD, "stray"), "unexpected argument 'stray'; see --help"),
        (("--workdir=a", "--config=config.py:huge"), "there is no variant huge: use small or large"),
        (("--workdir=a", "--config=config.py:typo"), "width: 7 is odd"),
        (("--workdir=a", "--config=config.py:broken"), "name 'undefined_name' is not defined"),
        (("--workdir=a", "--config=none.py"), "[Errno 2] No such file or directory: 'none.py'"),
        ((*GOOD, "--config.step=3"), 'the config has no key \'step\'. Did you mean "steps" instead of "step"?'),
        ((*GOOD, "--config.nest.depth=3"), "the config has no key 'depth'"),
        ((*GOOD, "--config.steps=many"), "flag --config.steps=many: invalid literal for int() with base 10: 'many'"),
        ((*GOOD, "--fail=user"), "first line second line"),
        ((*GOOD, "--fail=ENOSPC"), "[Errno 28] refused: '/the/file'"),
        ((*GOOD, "--fail=copy"), "[Errno 28] No space left on device: '/b'"),
        (
            (*GOOD, "--fail=full"),
            "No space left on device (os error 28): free some space and start the same command again",
        ),
        ((*GOOD, "--fail=EROFS"), "[Errno 30] refused: '/the/file'"),
        ((*GOOD, "--fail=EACCES"), "[Errno 13] refused: '/the/file'"),
    ],
)
def test_bad_input_is_one_line(folder, arguments, error):
    done = run(folder, *arguments)
    assert (done.status, done.err, done.out) == (2, f"error: {error}\n", "")


@pytest.mark.parametrize("fault", ["bug", "ENOENT"])
def test_bugs_keep_their_traceback(folder, fault):
    done = run(folder, *GOOD, f"--fail={fault}")
    assert done.status == 1
    assert "Traceback" in done.err


@pytest.mark.parametrize("where", ["ctrl-c", "ctrl-c in a callback"])
def test_interruption(folder, where):
    done = run(folder, *GOOD, f"--fail={where}")
    assert (done.status, done.err) == (130, "interrupted\n")


def test_an_orderly_stop_has_its_own_status(folder):
    done = run(folder, *GOOD, "--fail=stopped")
    assert (done.status, done.err, done.out) == (143, "step 3 is saved\n", "")

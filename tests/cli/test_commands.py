"""A small command of ours, as a user starts it: its last lines, its help, its config, and one line for bad input."""

import json

import pytest
import yaml

from tests import commands

COMMAND = '''"""Does nothing much.

A second line of help.
"""
import dataclasses, errno, os, shutil, signal, time
from typing import Annotated
from absl import flags, logging
from mobile_video_jax import cli
from mobile_video_jax.core.config import Config
from mobile_video_jax.core.errors import Stopped, UserError
from mobile_video_jax.core.ranges import Count, Range, Share

class Lost:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

class Late:
    def __del__(self):
        raise RuntimeError("Event loop is closed")

@dataclasses.dataclass(frozen=True)
class Nest(Config):
    width: Count = 8  # channels

@dataclasses.dataclass(frozen=True)
class Settings(Config):
    steps: Count = 3  # steps to take
    rate: Share = 0.1  # share of something
    quick: bool = False  # be quick
    sides: tuple[Count, ...] = (1, 2)  # sides
    nest: Nest = dataclasses.field(default_factory=Nest)

CONFIG = cli.define_config(lambda values: Settings, "The config.")
WORKDIR = cli.require_path("workdir", "Where to.")
SCALE = cli.define_number("scale", 1.0, Annotated[float, Range(0, 4, open="low")], "How large.")
VIEW = flags.DEFINE_bool("view", False, "Show it.")
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
    if FAIL.value == "a save":
        Late()
        raise OSError(errno.ENOSPC, "No space left on device", "/the/file")
    if FAIL.value == "copy":
        raise shutil.Error([("/a", "/b", "[Errno 28] No space left on device: '/b'")])
    if FAIL.value == "stopped":
        raise Stopped("step 3 is saved", 143)
    if FAIL.value:
        raise OSError(getattr(errno, FAIL.value), "refused", "/the/file")
    cli.finish(WORKDIR.value, CONFIG.values)

if __name__ == "__main__":
    cli.run(main, config=CONFIG)
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
    assert json.loads(summary) == {"steps": 7, "rate": 0.1, "quick": False, "sides": [1, 2], "nest": {"width": 9}}
    assert done.err == ""


def test_help_tells_of_this_command_alone(folder):
    done = run(folder, "--help")
    assert done.status == 0
    assert done.out.startswith("Does nothing much.\n\nA second line of help.")
    assert "--workdir: Where to." in done.out
    assert "(a number above 0, at most 4)" in done.out
    assert "--pdb" not in done.out
    assert done.err == ""


def test_help_lists_the_keys_of_the_config_that_is_named(folder):
    done = run(folder, "--config=config.py:large", "--config.rate=0.5", "--help")
    assert done.status == 0, done.err
    assert "  --config.rate=0.5\n      share of something (a number from 0 to 1)\n" in done.out
    assert "  --config.nest.width=64\n      channels (a whole number from 1 to 2,147,483,647)" in done.out


def test_values_of_a_file_change_the_config_and_flags_win(folder):
    (folder / "mine.yaml").write_text("steps: 1e3\nrate: 0.2\nnest:\n  width: 5\nsides: [3]\n")
    done = run(folder, *GOOD, "--values=mine.yaml", "--config.rate=.4", "--config.quick", "--config.steps", "2e1")
    assert done.status == 0, done.err
    expected = {"steps": 20, "rate": 0.4, "quick": True, "sides": [3], "nest": {"width": 5}}
    assert json.loads(done.out.splitlines()[-1]) == expected


def test_the_printed_config_is_a_file_of_values(folder):
    printed = run(folder, "--config=config.py:large", "--config.sides=4,5", "--print_config")
    assert (printed.status, printed.err) == (0, "")
    assert yaml.safe_load(printed.out) == {
        "steps": 3,
        "rate": 0.1,
        "quick": False,
        "sides": [4, 5],
        "nest": {"width": 64},
    }
    (folder / "printed.yaml").write_text(printed.out)
    again = run(folder, "--config=config.py:small", "--values=printed.yaml", "--print_config")
    assert again.out == printed.out


GOOD = ("--workdir=a", "--config=config.py")
KEYS = "nest, quick, rate, sides, steps"
COUNT = "a whole number from 1 to 2,147,483,647"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((*GOOD, "--wrkdir=b"), "Unknown command line flag 'wrkdir'. Did you mean: workdir ?; see --help"),
        (("--config=config.py",), "--workdir is missing; see --help"),
        (("--workdir=a",), "--config is missing: use --config=FILE.py:VARIANT, such as --config=dit:tiny"),
        (
            ("--workdir=a", "--config.steps=3"),
            "--config is missing: use --config=FILE.py:VARIANT, such as --config=dit:tiny",
        ),
        ((*GOOD, "stray"), "unexpected argument 'stray'; see --help"),
        (("--workdir=a", "--config=config.py:huge"), "there is no variant huge: use small or large"),
        (("--workdir=a", "--config=config.py:typo"), "config config.py:typo: width: 7 is odd"),
        (
            ("--workdir=a", "--config=config.py:broken"),
            "config config.py:broken: name 'undefined_name' is not defined",
        ),
        ((*GOOD, "--config.step=3"), "config.step is no key of this config; did you mean steps? it has " + KEYS),
        ((*GOOD, "--config.nest.deep=3"), "config.nest.deep is no key of this config; it has width"),
        ((*GOOD, "--config.nest=3"), "config.nest=3: use a mapping with the keys width"),
        ((*GOOD, "--config.steps.more=3"), "config.steps={'more': '3'}: use " + COUNT),
        ((*GOOD, "--config.steps=many"), "config.steps=many: use " + COUNT),
        ((*GOOD, "--config.steps=1.5"), "config.steps=1.5: use " + COUNT),
        ((*GOOD, "--config.steps=0"), "config.steps=0: use " + COUNT),
        ((*GOOD, "--config.rate=nan"), "config.rate=nan: use a number from 0 to 1"),
        ((*GOOD, "--config.quick=perhaps"), "config.quick=perhaps: use true or false"),
        ((*GOOD, "--config.sides=1,0"), "config.sides[1]=0: use " + COUNT),
        ((*GOOD, "--scale=nan"), "flag --scale=nan: use a number above 0, at most 4"),
        ((*GOOD, "--scale=0"), "flag --scale=0: use a number above 0, at most 4"),
        ((*GOOD, "--view=yes please"), "flag --view=yes please: use true or false"),
        (("--config=config.py", "--workdir=s3://a/b"), "s3://a/b: name a local path or gs://BUCKET/NAME"),
        (("--config=config.py", "--workdir=gs:/a/b"), "gs:/a/b: name a local path or gs://BUCKET/NAME"),
        (("--config=config.py", "--workdir="), "flag --workdir=: name a path"),
        ((*GOOD, "--values=gs://a/b.yaml"), "gs://a/b.yaml: name a path of this machine here"),
        ((*GOOD, "--values=none.yaml"), "--values=none.yaml: there is no such file"),
        ((*GOOD, "--fail=user"), "first line second line"),
        ((*GOOD, "--fail=ENOSPC"), "[Errno 28] refused: '/the/file'"),
        (
            (*GOOD, "--fail=copy"),
            "[Errno 28] No space left on device: '/b': free some space and start the same command again",
        ),
        (
            (*GOOD, "--fail=full"),
            "No space left on device (os error 28): free some space and start the same command again",
        ),
        (
            (*GOOD, "--fail=a save"),
            "[Errno 28] No space left on device: '/the/file': free some space and start the same command again",
        ),
        ((*GOOD, "--fail=EROFS"), "[Errno 30] refused: '/the/file'"),
        ((*GOOD, "--fail=EACCES"), "[Errno 13] refused: '/the/file'"),
    ],
)
def test_bad_input_is_one_line(folder, arguments, error):
    done = run(folder, *arguments)
    assert (done.status, done.err, done.out) == (2, f"error: {error}\n", "")


def test_a_config_that_is_not_there_is_told_with_those_that_are(folder):
    done = run(folder, "--workdir=a", "--config=none.py")
    assert done.status == 2 and done.out == ""
    assert done.err.startswith("error: there is no config file none.py: use FILE.py:VARIANT, or one of ablate, ")


@pytest.mark.parametrize("text", ["steps: [", "just words", "- 1"])
def test_a_file_of_values_that_holds_none_is_refused(folder, text):
    (folder / "bad.yaml").write_text(text)
    done = run(folder, *GOOD, "--values=bad.yaml")
    assert done.status == 2 and len(done.err.splitlines()) == 1 and "--values=bad.yaml" in done.err


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

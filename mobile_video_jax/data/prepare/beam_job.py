"""Work that Beam spreads over machines, in blocks that lie in files: a job started again leaves out finished ones."""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json

# The name "DirectRunner" would try to download and start another program, Prism, first.
RUNNERS = {
    "direct": "apache_beam.runners.portability.fn_api_runner.FnApiRunner",
    "dataflow": "DataflowRunner",
    "spark": "SparkRunner",
}
INSTALL = "pip install -e '.[beam]', and 'apache-beam[gcp]' of the same version for Dataflow"
Spread = Callable[[Callable[[str], None], Sequence[str]], None]


@dataclasses.dataclass(frozen=True)
class BeamJob:
    """A runner of Beam, a name of RUNNERS, and its own options, as ("--project=P", "--region=R").

    Raises UserError when Beam is not installed or refuses the options.
    """

    runner: str
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            self._pipeline()
        except ImportError as error:
            raise UserError(f"Beam is not installed ({error}): {INSTALL}") from None
        except (ValueError, SystemExit) as error:  # argparse says what is wrong, and leaves
            raise UserError(f"Beam refuses --pipeline_options={' '.join(self.options)} ({error})") from error

    def __call__(self, function: Callable[[str], None], arguments: Sequence[str]) -> None:
        """Calls the function with each argument, on any machine and in any order, and once more where one fails."""
        import apache_beam as beam

        with self._pipeline() as pipeline:
            pipeline | beam.Create(list(arguments)) | beam.Reshuffle() | beam.Map(function)

    def _pipeline(self) -> Any:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        options = PipelineOptions([f"--runner={RUNNERS[self.runner]}", *self.options])
        options.get_all_options()  # parses them
        return beam.Pipeline(options=options)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Calls functions on many items, a block of items at a time, with questions and answers as JSON in `folder`.

    A pipeline holds the names of the files alone, as services limit its size. An answer appears whole or not at all.
    """

    folder: Path
    spread: Spread

    def map(self, name: str, function: Callable[[Any], Any], items: Sequence[Any], block: int = 1) -> Iterator[Any]:
        """The function's answers, in the order of the items; those that are there already are not asked for again."""
        existing = {path.name for path in self.folder.iterdir()}
        cuts = [(start, min(start + block, len(items))) for start in range(0, len(items), block)]
        questions = {f"{name}-{start:09}-{stop:09}": items[start:stop] for start, stop in cuts}
        unanswered = {key: question for key, question in questions.items() if _answer(key) not in existing}
        print(f"{name}: {len(unanswered)} of {len(questions)} blocks to do", file=sys.stderr)
        for key, question in unanswered.items():
            write_json(self.folder / _question(key), question)
        if unanswered:
            self.spread(functools.partial(_finish, self.folder, function), list(unanswered))
        for key in questions:
            yield from json.loads((self.folder / _answer(key)).read_text())


def _question(key: str) -> str:
    return f"{key}.question.json"


def _answer(key: str) -> str:
    return f"{key}.answer.json"


def _finish(folder: Path, function: Callable[[Any], Any], key: str) -> None:
    items = json.loads((folder / _question(key)).read_text())
    write_json(folder / _answer(key), [function(item) for item in items])

"""Every call of `train` on a run: from which step to which, on what, how it ended, and what its time went into."""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from mobile_video_jax.core.errors import STUCK, Stopped
from mobile_video_jax.core.files import append, read_json, write_json
from mobile_video_jax.core.progress import duration, say
from mobile_video_jax.core.revision import git_revision, hardware
from mobile_video_jax.parallel.distributed import from_first, is_first

NAME, OPEN = "sessions.jsonl", "session.json"
Ending = Literal["finished", "stopped", "diverged", "failed", "lost"]  # lost: the process could not say how it ended


@dataclasses.dataclass
class Session:
    """A session that runs. RUN/session.json holds what is known of it, so that one that is killed is counted too."""

    run: Path
    first_step: int
    mesh: Mesh
    began: float = dataclasses.field(default_factory=time.time)

    @classmethod
    def begin(cls, run: Path, first_step: int, mesh: Mesh) -> "Session":
        """Records the session before as lost where it did not end, and opens this one, in the first process.

        Raises Stopped, in every process, where the two sessions before failed at the same step: so would this one.
        """
        session, refusal = cls(run, first_step, mesh), ""
        if is_first():
            if (run / OPEN).exists():
                _record(run, read_json(run / OPEN) | {"ended": "lost"})
            if (step := _stuck_at(read_sessions(run), first_step)) is not None:
                refusal = (
                    f"error: the two starts before failed at step {step}, from step {first_step}: mend the cause, and "
                    "start the same command again"
                )
                _record(run, session._line(first_step, {}, "stopped"))
            else:
                session.beat(first_step, {})
        if refusal := from_first(refusal):
            raise Stopped(refusal, STUCK)
        return session

    def beat(self, done: int, seconds: Mapping[str, float]) -> None:
        """Notes how far the session has come."""
        write_json(self.run / OPEN, self._line(done, seconds, "lost"))

    def end(self, done: int, seconds: Mapping[str, float], ended: Ending) -> None:
        """Appends the session's line to RUN/sessions.jsonl, and prints how the time was shared."""
        _record(self.run, self._line(done, seconds, ended))
        total = sum(seconds.values())
        parts = [f"{kind} {value / total:.0%}" for kind, value in sorted(seconds.items(), key=lambda item: -item[1])]
        say(f"{duration(total)} for steps {self.first_step} to {done}: {', '.join(parts)}")
        say(f"goodput {goodput(read_sessions(self.run)):.0%} since the run began")

    def _line(self, done: int, seconds: Mapping[str, float], ended: Ending) -> dict[str, Any]:
        return {
            "steps": [self.first_step, done],
            "seconds": {kind: round(value, 3) for kind, value in seconds.items()},
            "mesh": dict(self.mesh.shape),
            "processes": jax.process_count(),
            "hardware": hardware(),
            "revision": git_revision(),
            "began": self.began,
            "until": time.time(),
            "ended": ended,
        }


def read_sessions(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's sessions.jsonl."""
    path = run / NAME
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def goodput(sessions: Sequence[Mapping[str, Any]]) -> float:
    """The share of the time since a run's first start that its steps would take at the best session's rate.

    Steps that were done again after a restart count once; time between sessions counts. 0 without steps.
    """
    timed = [each for each in sessions if "began" in each]  # lines of older versions have no clock
    paces = [
        each["seconds"].get("steps", 0.0) / (each["steps"][1] - each["steps"][0])
        for each in timed
        if each["steps"][1] > each["steps"][0] and each["seconds"].get("steps")
    ]
    if not paces:
        return 0.0
    unique = max(each["steps"][1] for each in timed) - min(each["steps"][0] for each in timed)
    wall = max(each["until"] for each in timed) - min(each["began"] for each in timed)
    return float(min(unique * min(paces) / wall, 1.0)) if wall else 0.0


def _stuck_at(sessions: Sequence[Mapping[str, Any]], first_step: int) -> int | None:
    """The step that both of the last two sessions failed at, if they began where this one does."""
    last = [each for each in sessions[-2:] if each.get("ended") in ("failed", "lost")]
    if len(last) < 2 or last[0]["steps"] != last[1]["steps"] or last[1]["steps"][0] != first_step:
        return None
    return int(last[1]["steps"][1])


def _record(run: Path, line: Mapping[str, Any]) -> None:
    append(run / NAME, json.dumps(line) + "\n")
    (run / OPEN).unlink(missing_ok=True)

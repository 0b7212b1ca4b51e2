"""Every call of `train` on a run: from which step to which, on what, and what its time went into."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from mobile_video_jax.core.files import append
from mobile_video_jax.core.progress import duration, say
from mobile_video_jax.core.revision import git_revision, hardware

NAME = "sessions.jsonl"


def record_session(run: Path, steps: tuple[int, int], seconds: Mapping[str, float], mesh: Mesh) -> None:
    """Appends one line to RUN/sessions.jsonl, and prints how the time was shared."""
    record = {
        "steps": list(steps),
        "seconds": {kind: round(value, 3) for kind, value in seconds.items()},
        "mesh": dict(mesh.shape),
        "processes": jax.process_count(),
        "hardware": hardware(),
        "revision": git_revision(),
    }
    append(run / NAME, json.dumps(record) + "\n")
    total = sum(seconds.values())
    parts = [f"{kind} {value / total:.0%}" for kind, value in sorted(seconds.items(), key=lambda item: -item[1])]
    say(f"{duration(total)} for steps {steps[0]} to {steps[1]}: {', '.join(parts)}")


def read_sessions(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's sessions.jsonl."""
    path = run / NAME
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

"""A probe of the folder that a run is written to, before its first step is paid for."""

import os
import uuid
from pathlib import Path

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import ObjectPath
from mobile_video_jax.parallel.distributed import from_first, is_first


def check_writable(run: Path) -> None:
    """Raises UserError, in every process, where the first cannot write into the folder as training does.

    In a bucket that is an object that comes back as it was written; on a disk a folder that can be renamed, which a
    mounted bucket without a hierarchical namespace refuses.
    """
    refusal = from_first(_refusal(run) if is_first() else "")
    if refusal:
        raise UserError(refusal)


def _refusal(run: Path) -> str:
    name = f".probe-{uuid.uuid4().hex[:8]}"
    try:
        if isinstance(run, ObjectPath):
            (run / name).write_text(name)
            written = (run / name).read_text()
            (run / name).unlink()
            return "" if written == name else f"{run} does not give back what is written to it: use another bucket"
        parent = next(folder for folder in (run.absolute(), *run.absolute().parents) if folder.exists())
        before, after = parent / name, parent / f"{name}-renamed"
        before.mkdir()
        try:
            os.rename(before, after)
        except OSError as error:
            before.rmdir()
            return f"{run}: folders cannot be renamed there ({error}): name a bucket as --workdir=gs://BUCKET/NAME"
        after.rmdir()
    except Exception as error:  # every store and its network layer has types of its own
        first_line = (str(error).splitlines() or [type(error).__name__])[0][:200]
        return f"{run} cannot be written ({first_line}): check your rights, or name another --workdir"
    return ""

"""Data sets of an object store on this machine's disk, as ArrayRecord reads random records of local files alone."""

import fcntl
import functools
import hashlib
import os
import sys
from pathlib import Path

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import replacing
from mobile_video_jax.core.storage import ObjectPath, copy_folder, folder_bytes, storage_path
from mobile_video_jax.data.dataset import MANIFEST


@functools.cache
def data_folder(text: str) -> Path:
    """The local folder of a data set: the one named, or a copy of one in an object store.

    The copy takes as much disk as the data set, under XDG_CACHE_HOME (~/.cache). It appears whole or not at all, once
    for all processes of a host, and bears the digest of its manifest: a data set made anew is copied anew.
    Raises UserError for a folder without a manifest, and for none.
    """
    if not text:
        raise UserError(
            "no data set is named: use --config.data=DIR, the --out of launch.prepare_data for a VAE, of launch.encode "
            "for a transformer (make one with python -m launch.prepare_data --source=DIR_OR_NAME --out=DIR)"
        )
    source = storage_path(text)
    if not isinstance(source, ObjectPath):
        return source
    try:
        manifest = (source / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{source} holds no finished data set: name the --out of prepare_data or encode") from None
    copy = _cache().joinpath(*source.parts[1:], hashlib.sha256(manifest).hexdigest()[:16])
    copy.parent.mkdir(parents=True, exist_ok=True)
    with copy.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not copy.exists():
            print(f"copying {source} ({folder_bytes(source) / 1e9:.1f} GB) to {copy}", file=sys.stderr)
            with replacing(copy) as temporary:
                copy_folder(source, temporary)
    return copy


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mobile_video_jax"

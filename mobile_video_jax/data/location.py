"""The folder of a data set, on a disk or in a bucket, where its records are read: no data set is copied."""

from pathlib import Path

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import storage_path


def data_folder(text: str) -> Path:
    """The folder that a user names; ArrayRecord reads random records of gs:// as well.

    Raises UserError for none, and for a bucket that cannot be read.
    """
    if not text:
        raise UserError(
            "no data set is named: use --config.data=DIR, the --out of launch.prepare_data for a VAE, of launch.encode "
            "for a transformer (make one with python -m launch.prepare_data --source=DIR_OR_NAME --out=DIR)"
        )
    return storage_path(text)

"""What TensorBoard's event files of a run hold."""

import io
import struct
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary


def events(run: Path) -> Iterator[Summary.Value]:
    """The values in a run's event files, whose records are a length, its checksum, the bytes and theirs."""
    for file in (run / "tensorboard").iterdir():
        data = file.read_bytes()
        while data:
            end = 12 + struct.unpack_from("<Q", data)[0]
            yield from Event.FromString(data[12:end]).summary.value
            data = data[end + 4 :]


def shown(run: Path) -> dict[str, Image.Image]:
    values = [value for value in events(run) if value.HasField("image")]
    return {value.tag: Image.open(io.BytesIO(value.image.encoded_image_string)) for value in values}

"""Pages of Ogg (RFC 3533); their checksums FFmpeg looks at."""

from collections.abc import Iterator

from mobile_video_jax.data.video.container import UnreadableVideo
from mobile_video_jax.data.video.structure.buffer import Buffer

LARGEST_PAGE, HEADER = 65_307, 27  # bytes
LAST = 4  # the flag of a stream's last page


def ogg_ends(data: Buffer) -> Iterator[int]:
    """End of the last page, which must be marked as such."""
    offset = data.rfind(b"OggS", max(len(data) - 2 * LARGEST_PAGE, 0))
    if offset < 0:
        return
    yield offset + HEADER
    body = offset + HEADER + data[offset + HEADER - 1]
    yield body
    yield body + sum(data[offset + HEADER : body])
    if not data[offset + 5] & LAST:
        raise UnreadableVideo("truncated: its last page is missing")

"""Frames of two fields, taken at two times, made into whole frames of one time."""

import itertools
from collections.abc import Iterator

import av
from av.filter import Graph

NEIGHBOURS = 1  # frames before and after a deinterlaced frame that decide how it looks


def deinterlaced(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The same number of frames in the same order; those marked as interlaced are deinterlaced by bwdif.

    A frame depends on NEIGHBOURS alone, so that frames decoded from the middle of a video, with one more at each end,
    are those of the whole video.
    """
    previous: list[av.VideoFrame] = []
    for frame in frames:
        if frame.interlaced_frame:
            yield from itertools.islice(_filtered(itertools.chain(previous, [frame], frames)), len(previous), None)
            return
        yield frame
        previous = [frame]


def _filtered(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    first = next(frames)
    graph = Graph()
    graph.threads = 1
    source = graph.add(
        "buffer",
        video_size=f"{first.width}x{first.height}",
        pix_fmt=first.format.name,
        time_base="1/1000",  # nobody reads the times
        colorspace=str(first.colorspace),
        range=str(first.color_range),
    )
    graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    for frame in itertools.chain([first], frames):
        graph.vpush(frame)
        yield from _ready(graph)
    graph.vpush(None)
    yield from _ready(graph)


def _ready(graph: Graph) -> Iterator[av.VideoFrame]:
    """The frames that the filter has finished."""
    while True:
        try:
            yield graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return

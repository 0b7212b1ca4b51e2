"""Runs gcp-storage-emulator, mended in two places: python -m tests.object_store_server start --port=9023 ..."""

import re
from http import HTTPStatus
from typing import Any

from gcp_storage_emulator import server
from gcp_storage_emulator.handlers import objects

plain_download, plain_read_data, plain_decode = objects.download, server._read_data, server._decode_raw_data


def download(request: Any, response: Any, storage: Any, *args: Any, **kwargs: Any) -> None:
    """Sends an object with its generation, as the real store does: TensorStore writes anew only what it has seen."""
    plain_download(request, response, storage, *args, **kwargs)
    if response.status < HTTPStatus.MULTIPLE_CHOICES:
        stored = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
        response["x-goog-generation"] = stored["generation"]


def decode(raw: bytes | None, handler: Any) -> bytes | None:
    """Keeps the body of a request for `read_data`."""
    handler.body = plain_decode(raw, handler)
    return handler.body


def read_data(handler: Any, query: Any) -> Any:
    """Reads an upload to its last byte: the e-mail parser drops a carriage return there."""
    data = plain_read_data(handler, query)
    if isinstance(data, dict) and "content-type" in data:
        part = handler.body.split(b"--" + handler.headers.get_boundary().encode())[2]
        line_end = re.match(rb"\r?\n", part).group()
        data["content"] = part.split(2 * line_end, 1)[1].removesuffix(line_end)
    return data


objects.download = download  # the server looks them up when it is imported or called
server._decode_raw_data, server._read_data = decode, read_data

if __name__ == "__main__":
    from gcp_storage_emulator.__main__ import main

    main()

"""Runs gcp-storage-emulator with a header that it lacks: python -m tests.object_store_server start --port=9023 ..."""

from http import HTTPStatus
from typing import Any

from gcp_storage_emulator.handlers import objects

plain_download = objects.download


def download(request: Any, response: Any, storage: Any, *args: Any, **kwargs: Any) -> None:
    """Sends an object with its generation, as the real store does: TensorStore writes anew only what it has seen."""
    plain_download(request, response, storage, *args, **kwargs)
    if response.status < HTTPStatus.MULTIPLE_CHOICES:
        stored = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
        response["x-goog-generation"] = stored["generation"]


objects.download = download  # the server looks it up when it is imported

if __name__ == "__main__":
    from gcp_storage_emulator.__main__ import main

    main()

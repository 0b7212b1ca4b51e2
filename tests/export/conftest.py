"""Checked array types beside coremltools and torch.jit."""

from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def unchecked_traces() -> Iterator[None]:
    """Array types are not checked while torch traces: there a tensor's sizes are tensors themselves."""

    def unchecked(trace: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            jaxtyping.config.update("jaxtyping_disable", True)
            try:
                return trace(*args, **options)
            finally:
                jaxtyping.config.update("jaxtyping_disable", False)

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.jit, "trace", unchecked(torch.jit.trace))
        patch.setattr(torch.export, "export", unchecked(torch.export.export))
        yield

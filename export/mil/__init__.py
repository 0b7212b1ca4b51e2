"""Saved Core ML packages, loaded from disk and executed op by op in PyTorch, on any machine."""

import export.quiet  # noqa: F401  quiets coremltools before a module here imports a part of it

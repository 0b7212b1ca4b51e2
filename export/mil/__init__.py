"""Saved Core ML packages, loaded from disk and executed op by op in PyTorch, on any machine."""

"""Core AI: assets (.aimodel) for iOS 27, written and executed by Apple's own packages."""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "coreai-torch has only been validated")  # with 2.13.0, of which 2.13.0+cpu is one
    import coreai_torch  # noqa: F401

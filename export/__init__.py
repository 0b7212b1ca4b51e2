"""From a trained run to packages for phones."""

import logging

# On import coremltools warns that macOS is missing, and that torch 2.13 and scikit-learn 1.9 are untested with it.
logging.getLogger("coremltools").setLevel(logging.ERROR)

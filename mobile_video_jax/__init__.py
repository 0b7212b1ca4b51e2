"""Train, shrink, distil and ship a video diffusion transformer for phones."""

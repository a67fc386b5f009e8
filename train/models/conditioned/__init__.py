"""Brain-conditioned video systems: encoder, condition, generator and codec, and how they are trained."""

"""Training of decoders: recipes, parts and metrics."""

"""Data sets opened by their paths, and cut into windows."""

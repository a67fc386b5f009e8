"""Volumes: where the head lies, and what is read of them."""

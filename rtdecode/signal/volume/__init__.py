"""Volumes of fMRI: where the head lies in them, and how features are read from them."""

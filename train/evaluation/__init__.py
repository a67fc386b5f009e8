"""Evaluation of decoders: held-out windows are decoded, and scored in sections beside their controls."""

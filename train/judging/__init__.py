"""Judges, which compute the figures of a decoder: `identification` and `film` compare clips with a film."""

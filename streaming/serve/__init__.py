"""Decoding elsewhere: what crosses the network, the decoder that serves many sessions, and its client."""

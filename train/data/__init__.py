"""Training data: recordings and simulated sessions, run through the causal chain of a live session."""

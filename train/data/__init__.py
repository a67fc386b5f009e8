"""Training data: recordings and simulated sessions through the causal chain."""

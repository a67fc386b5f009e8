"""Training with gradients: the loop, its phases, adapters and checkpoints."""

"""What clips are worth, beside identification."""

"""What clips are worth: accuracy against the truth, seams, confidence."""

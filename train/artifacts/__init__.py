"""What a training leaves: run folders, and what a recipe's slots hold."""

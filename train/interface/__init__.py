"""What every system offers to training, export and evaluation."""

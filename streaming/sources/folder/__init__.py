"""Read volumes from the files that a scanner writes into a folder."""

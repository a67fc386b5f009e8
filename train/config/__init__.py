"""What every training begins with: recipes, builders, the working folder, and the files of runs."""

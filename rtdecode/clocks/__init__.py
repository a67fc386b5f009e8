"""From stamps to one time line: when a run began, and when each sample and each volume was acquired."""

"""The gradient artefact of the scanner in the EEG, and its removal."""

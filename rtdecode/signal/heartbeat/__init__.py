"""The artefact of the heartbeat in the EEG, and its removal."""

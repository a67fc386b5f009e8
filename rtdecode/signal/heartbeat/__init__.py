"""Remove the heartbeat artefact from EEG recorded inside the magnet."""

"""Read EEG and markers from the network."""

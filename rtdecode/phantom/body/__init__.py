"""The simulated body between its magnet and its amplifier."""

"""Run the simulated session in real time: outlets, delivery of files, and faults."""

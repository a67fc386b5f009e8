"""The live session: sources, decoder and sinks."""

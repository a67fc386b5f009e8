"""The live session: sources of data, the decoder, and sinks for what it decodes."""

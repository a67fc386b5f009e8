"""Windows turned into clips before their deadline."""

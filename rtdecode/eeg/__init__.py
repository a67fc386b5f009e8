"""EEG from the amplifier's chunks to clean samples on the bundle's grid."""

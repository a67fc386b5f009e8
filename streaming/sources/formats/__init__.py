"""Readers of what the makers write: DICOM of several kinds, NIfTI, PAR/REC."""

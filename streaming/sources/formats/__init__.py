"""Decode the file formats of scanner vendors: DICOM of several kinds, NIfTI and PAR/REC."""

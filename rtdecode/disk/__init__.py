"""What is kept on disk: recordings, calibrations, videos, sealed folders, strict JSON."""

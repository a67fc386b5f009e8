"""The files in which scanners of several makers export a volume."""

"""Categories of objects from recorded human fMRI, shown as pictograms."""

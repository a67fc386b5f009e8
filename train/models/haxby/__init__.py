"""Categories of objects from recorded human fMRI, shown as pictograms.

`plan` reads the runs and trains, and `system` classifies and shows `pictograms`. `causal` normalises windows
with the components of `drift`, `trials` chooses the settings, and `leave_one_run_out` is the judge.
"""

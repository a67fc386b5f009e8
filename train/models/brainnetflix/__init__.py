"""Brain Netflix (Fosco, Lahner and colleagues 2024, ECCV): several participants and data sets in one decoder.

A linear layer for each participant leads volumes into a space that all share, a perceptron of residual blocks
and its heads regress what a text-to-video model is conditioned by, and that model, which learns from films
alone, draws. The encoder is in `train.models.brainnetflix.encoder`, and `train.models.brainnetflix.plan`
trains the whole. ``docs/recipes.md`` holds every value beside those of a review and of public code.
"""

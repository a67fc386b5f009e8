"""MinD-Video (Chen, Qing and Zhou 2023, arXiv:2305.11675): fMRI in place of the text of Stable Diffusion.

An encoder of patches learns from masked volumes, reads the volumes of a window over space and time, and is
contrasted with captions and frames. Its tokens condition an image model that was made a model of frames.
The encoder is in `train.models.mindvideo.encoder`, its first training in
`train.models.mindvideo.pretraining`, and `train.models.mindvideo.plan` trains the whole.
``docs/recipes.md`` holds every value beside the paper's.
"""

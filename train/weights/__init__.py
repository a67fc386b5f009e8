"""Weights that a user has on disk, in the forms in which others publish them. Nothing is ever downloaded.

`folders` opens the folders of diffusers and transformers, `single_file` fills a module from one file, `lora`
reads low-rank adapters, and `merging` adds them to a module. Every key of a file is used or is an error. What
was read, and the licence that the user stated, is kept as a `source.Source`.

Runs of this project are something else: `train.artifacts.run_folder`, `train.trainer.checkpoints` and
`train.config.bundled_weights` keep those.
"""

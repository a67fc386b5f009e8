"""What a training aims at, computed once from the clips of a data set: captions, embeddings and latents.

``python -m train.targets DATA NAME=DIR ...`` computes them with models that the user has on disk. `cache`
keeps them in files that go by their content, and reads them. `embeddings`, `captions` and `latents` each open
a kind of model.
"""

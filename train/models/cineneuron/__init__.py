"""CineNeuron (arXiv preprint, 2026): a brain model whose tokens are joined with memories of what was watched.

Its brain model is in `train.models.cineneuron.brain`, its mixture of memories in
`train.models.cineneuron.memories`, and `train.models.cineneuron.plan` trains both. ``docs/recipes.md`` holds
every value beside the paper's.
"""

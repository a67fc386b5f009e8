"""The shipped systems, a folder each.

Every folder has a plan (``plan.py``), which trains the system and restores it from a run, and the system
itself (``system.py``), which decodes and lists the graphs of an export. `train.interface.system` is the
interface of both, and `train.config.builders` gives the plans their names in recipes.

- `ridge` is linear and in closed form, on simulated sessions: the baseline, and the shortest plan.
- `haxby` is in closed form, too, on recorded fMRI. It brings data and a judge of its own.
- `compact` is trained with gradients, by `train.trainer.loop`.
- `cinesync` is a published system: an encoder and its contrasts over `conditioned`, which all video systems
  that a brain conditions share.
"""

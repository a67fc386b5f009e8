"""CineSync (Gao et al. 2026, CineBrain): EEG and fMRI in place of the text of a video diffusion model.

Two transformers encode fMRI and EEG, and a perceptron fuses their tokens into the condition of CogVideoX. The
encoders are first aligned with embeddings of what was watched, then a low-rank adapter of the video model is
trained on their condition. ``docs/recipes.md`` holds every value beside the paper's and its code's.
"""

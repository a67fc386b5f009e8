"""The small video model: a brain encoder says what was seen, and a flow draws it in a few steps.

`plan` trains the model, and `system` decodes with it. A window passes through `encoder`, with `refiner`
inside it, then `flow` and `codec`. In training, `film_windows` makes films and sessions and fits the encoder,
`build` puts the model together, `batches` and `trainable` are what the loop is given, and `held_out` is for
the tuning.
"""

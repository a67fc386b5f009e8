"""Training losses of one signature, so that a phase of any system can name any of them.

A loss is called with what the system makes of a batch (``outputs``: name -> tensor) and with the batch, and
returns a scalar. It is made with the names of what it reads, and a loss that learns is a module.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

Loss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]

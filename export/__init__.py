"""From a training run to a bundle."""

import sys

from rtdecode import terminal

# What stands for the program's name while Python looks for the module of ``python -m``. A program guards
# itself too, but only after its imports, which may lack an extra.
if sys.argv[:1] == ["-m"]:
    terminal.guard()

"""Train a recipe: ``python -m train.run RECIPE [key=value ...]``.

Every process that draws batches imports the module that was started, so that this one is nearly empty.
"""

import sys

if __name__ == "__main__":
    from rtdecode import terminal
    from train.run_recipe import main

    terminal.guard()
    raise SystemExit(main(sys.argv[1:]))

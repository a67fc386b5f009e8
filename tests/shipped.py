"""What ships: the bundles of the package, and the runs of the repository that they were made of."""

from pathlib import Path

from rtdecode import bundle as bundles

BUNDLES = sorted(path.parent.name for path in bundles.SHIPPED.glob("*/manifest.json"))
RUNS = Path(__file__).parents[1] / "train" / "runs"

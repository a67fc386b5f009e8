"""The names of the bundles that ship with the package."""

from rtdecode import bundle as bundles

BUNDLES = sorted(path.parent.name for path in bundles.SHIPPED.glob("*/manifest.json"))

"""Finding the figures of whatever decodes: `identification` and `film` judge clips against a film."""

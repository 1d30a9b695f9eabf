"""Small matters of English that several modules write sentences with."""


def listed(items):
    """Join items as a sentence does: ``a, b and c``; an empty string for none."""
    items = [str(item) for item in items]
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def plural(n, one, many=None):
    """Return a number with its noun: ``1 claim``, ``2,000 claims``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"

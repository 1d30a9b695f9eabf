"""Small matters of English that several modules write sentences with."""

#: What a training started from, by ``weights.used`` of its record.
STARTS = {"imagenet": "ImageNet weights", "none": "random values", "path": "weights from a file"}

#: What the two protocols do.
PROTOCOLS = {
    "sound": "PublicTest chooses epoch and learning rate, PrivateTest gives the final figure",
    "thesis": "PublicTest and PrivateTest together choose epoch and learning rate and give the final figure",
}


def interval(value, low, high):
    """``0.686 [0.671, 0.701]``; without the bracket where there is no interval, an en dash where there is no value."""
    if value != value:
        return "–"
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low == low else "")


def p_value(p):
    """``1.6e-16``; ``< 1e-300`` where a float holds no more of it, an en dash for NaN."""
    if p != p:
        return "–"
    return f"{p:.2g}" if p >= 1e-300 else "< 1e-300"


def tested_on(results):
    """Say what trainings were tested on, so that a part of the test images is not taken for all of them.

    Parameters
    ----------
    results : list of ModelResult

    Returns
    -------
    str
        ``"the thesis's test set (7,178 images)"``, ``"112 of the test images"``, or, where the data are not the
        known FER2013, ``"the 300 test images of these data"``.
    """
    n = " or ".join(f"{size:,}" for size in sorted({int(result.mask("test").sum()) for result in results}))
    if any(result.record["split"]["test_images_per_class"] for result in results):
        return f"{n} of the test images"
    if all(result.record["data"]["known"] for result in results):
        return f"the thesis's test set ({n} images)"
    return f"the {n} test images of these data"


def scored_each_epoch(results):
    """Say that the curves are those of some of the images only; an empty string where all were scored."""
    most = sorted({result.record["split"].get("epoch_images_per_class", 0) for result in results} - {0})
    limits = " or ".join(map(str, most))
    return f"After each epoch at most {limits} images a class of each part were scored." if most else ""


def device_text(record):
    """``"CPU AMD EPYC with avx2, 2 threads"`` from a training's record; empty where no device was recorded."""
    device = record.get("device") or {}
    if not device.get("kind"):
        return ""
    threads = plural(device["threads"], "thread") if device.get("threads") else ""
    return ", ".join(filter(None, [f"{device['kind']} {device.get('name') or ''}".strip(), threads]))


def commit_text(record):
    """``"commit 0123456789ab, with uncommitted changes"``; empty where no commit was recorded."""
    git = record.get("git") or {}
    changes = ", with uncommitted changes" if git.get("dirty") else ""
    return f"commit {git['commit'][:12]}{changes}" if git.get("commit") else ""


def listed(items):
    """Join items as a sentence does: ``a, b and c``; an empty string for none."""
    items = [str(item) for item in items]
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def plural(n, one, many=None):
    """Return a number with its noun: ``1 claim``, ``2,000 claims``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def duration(seconds):
    """Seconds as a person says them: ``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 60:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"

"""Initial weights of a backbone from ``keras.applications``: ImageNet, none, or a file."""

import hashlib
import os
import random
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path

import filelock

from fer_utils.errors import ConfigError

#: Seconds without an answer after which Keras's weight server counts as unreachable.
TIMEOUT = 20


@contextmanager
def patience(seconds):
    """Give up on a silent server: ``keras.utils.get_file`` itself would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def digest(network):
    """SHA-256 over the names and values of a network's weights, in order."""
    sha = hashlib.sha256()
    for variable in network.weights:
        sha.update(variable.path.split("/", 1)[-1].encode())
        sha.update(variable.numpy().tobytes())
    return sha.hexdigest()


def backbone(application, weights, **arguments):
    """Build a network of ``keras.applications`` without its top.

    Parameters
    ----------
    application : callable
        For example ``keras.applications.ResNet50``.
    weights : str
        ``"imagenet"``: Keras's published weights, downloaded at first use; where they cannot be had, random
        initialisation instead, and the record says why. ``"none"``: random initialisation. Anything else is the
        path of a weights file for this network.
    **arguments
        Passed on, for example ``input_shape``.

    Returns
    -------
    network : keras.Model
        Without its classification top.
    record : dict
        ``requested``, ``used`` (``imagenet``, ``none`` or ``path``), ``sha256`` of the weights as loaded (None for
        random ones) and ``reason`` (why ``used`` is not what was requested, or None). It becomes part of
        ``run.json``.

    Raises
    ------
    ConfigError
        If the file does not exist or does not fit the network.
    """
    record = {"requested": weights, "used": weights, "sha256": None, "reason": None}
    if weights == "none":
        return application(include_top=False, weights=None, **arguments), record
    if weights == "imagenet":
        random_state = random.getstate()
        # Two models that start at once would download into the same file.
        lock = Path(tempfile.gettempdir()) / f"keras-{application.__name__}-{os.getuid()}.lock"
        try:
            with filelock.FileLock(lock), patience(TIMEOUT):
                network = application(include_top=False, weights="imagenet", **arguments)
        # Keras raises a bare Exception where the download fails, and OSError or ValueError for a damaged file.
        except Exception as error:
            # The failed attempt drew initial values; without it the fallback equals weights="none", seed by seed.
            random.setstate(random_state)
            reason = f"ImageNet weights could not be had ({type(error).__name__}: {str(error)[:200]})"
            network, _ = backbone(application, "none", **arguments)
            return network, record | {"used": "none", "reason": reason}
        return network, record | {"sha256": digest(network)}
    path = Path(weights).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"weights: {weights!r} is no file; expected 'imagenet', 'none' or the path of a weights file for "
            f"{application.__name__}"
        )
    try:
        network = application(include_top=False, weights=str(path), **arguments)
    except (ValueError, OSError, KeyError) as error:
        raise ConfigError(
            f"{path}: does not hold weights of {application.__name__} without its top ({error}); "
            "expected a file that its save_weights() wrote"
        ) from error
    return network, record | {"requested": path.name, "used": "path", "sha256": digest(network)}

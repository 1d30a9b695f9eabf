"""Initial weights of a backbone from ``keras.applications``: ImageNet, none, or a file."""

import hashlib
import os
import random
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path

import filelock
import h5py

from fer_utils.errors import ConfigError
from fer_utils.report.privacy import redact

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


def cache():
    """Return where Keras keeps weight files, as its ``keras_home()`` chooses it."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras").expanduser()
    # Keras turns to /tmp where it may not write; what is not there yet it makes.
    return (home if os.access(home, os.W_OK) else Path("/tmp/.keras")) / "models"


def remove_broken(folder):
    """Remove files from Keras's cache that are no whole HDF5 files: a process was killed while it wrote them.

    Keras checks most weight files by hash and downloads them again; MobileNet-V1's have none, and half of one would
    stand in the way for ever.
    """
    for path in Path(folder).glob("*.h5"):
        try:
            h5py.File(path, "r").close()
        except OSError:
            path.unlink(missing_ok=True)


def backbone(application, weights, *, resolved=None, **arguments):
    """Build a network of ``keras.applications`` without its top.

    Parameters
    ----------
    application : callable
        For example ``keras.applications.ResNet50``.
    weights : str
        ``"imagenet"``: Keras's published weights, downloaded at first use; where they cannot be had, random
        initialisation instead, and the record says why. ``"none"``: random initialisation. Anything else is the
        path of a weights file for this network.
    resolved : fer_utils.training.resolved.Resolved, optional
        What was used when this training began, and is used again: random values although the published ones can be
        had by now, or the record of weights that are gone, which a training that goes on has in its state.
    **arguments
        Passed on, for example ``input_shape``.

    Returns
    -------
    network : keras.Model
        Without its classification top.
    record : dict
        ``requested``, ``used`` (``imagenet``, ``none`` or ``path``), ``sha256`` of the weights as loaded (None for
        random ones) and ``reason`` (why ``used`` is not what was requested, or None). It becomes part of
        ``run.json``. Only where weights are gone that were there when the training began, ``absent`` says why.

    Raises
    ------
    ConfigError
        If the file does not exist, is not a file of weights or does not fit the network.
    """
    name = f"weights {application.__name__} {weights}"
    before = resolved.get(name) if resolved else None
    if before and before["used"] == "none" and before["reason"]:
        print(
            f"As when the trainings in this folder began, {application.__name__} starts from random values. To ask for "
            f"the weights again, delete {resolved.place} or choose another folder (out)."
        )
        return build(application, weights, offline=True, **arguments)[0], before
    try:
        network, record = build(application, weights, **arguments)
        absent = record["reason"]
    except ConfigError as error:
        if not before:
            raise
        network, absent = application(include_top=False, weights=None, **arguments), str(error)
    if before and absent:
        return network, before | {"absent": absent}
    if resolved:
        resolved.keep(name, record)
    return network, record


def build(application, weights, *, offline=False, **arguments):
    """Build the network and load its weights, or fall back: `backbone` without a memory.

    The names of layers, which Keras numbers as they are made, and the random values of those to come are the same
    whether or not the published weights can be had, and with `offline` too, where nobody is asked for them: a state
    is kept under these names.
    """
    record = {"requested": weights, "used": weights, "sha256": None, "reason": None}
    if weights == "none":
        return application(include_top=False, weights=None, **arguments), record
    if weights == "imagenet":
        network = application(include_top=False, weights=None, **arguments)
        random_state = random.getstate()
        # Two models that start at once would download into the same file.
        lock = Path(tempfile.gettempdir()) / f"keras-weights-{os.getuid()}.lock"
        try:
            with filelock.FileLock(lock), patience(TIMEOUT):
                remove_broken(cache())
                donor = application(include_top=False, weights=None if offline else "imagenet", **arguments)
            network.set_weights(donor.get_weights())
        # Keras raises a bare Exception where the download fails, and OSError or ValueError for a damaged file.
        except Exception as error:
            reason = f"ImageNet weights could not be had ({type(error).__name__}: {redact(str(error))[:200]})"
            return network, record | {"used": "none", "reason": reason}
        finally:
            random.setstate(random_state)
        return network, record | {"sha256": digest(network)}
    path = Path(weights).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"weights: {weights!r} is no file; expected 'imagenet', 'none' or the path of a weights file for "
            f"{application.__name__}"
        )
    # A whole saved network can carry code (a Lambda layer); a file of weights is numbers alone, and only such are read.
    if path.suffix.lower() not in (".h5", ".hdf5"):
        raise ConfigError(
            f"{path}: not a file of weights; expected .weights.h5 or .h5, which the save_weights() of "
            f"{application.__name__} without its top writes. A saved network (.keras) can carry code and is not taken"
        )
    try:
        network = application(include_top=False, weights=str(path), **arguments)
    except (ValueError, OSError, KeyError) as error:
        raise ConfigError(
            f"{path}: does not hold weights of {application.__name__} without its top ({error}); "
            "expected a file that its save_weights() wrote"
        ) from error
    return network, record | {"requested": path.name, "used": "path", "sha256": digest(network)}

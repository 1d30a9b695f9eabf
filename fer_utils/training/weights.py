"""Initial weights of a base network from ``keras.applications``: ImageNet, none, or a file."""

import hashlib
import os
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path

import filelock
import h5py
import keras

from fer_utils.errors import ConfigError, TrainingError, redact

#: Seconds without an answer after which Keras's weight server counts as unreachable.
TIMEOUT = 20


def initial_weights(run, network, application, weights):
    """Give the base inside a network its initial weights, and note in the run's record which.

    Parameters
    ----------
    run : TrainingRun
        ``run.weights`` becomes a dict: ``requested``, ``used`` (``imagenet``, ``none`` or ``path``), ``sha256`` of the
        weights as loaded (None for random ones) and ``reason`` (why ``used`` is not what was requested, or None).
    network : keras.Model
        Built; one of its layers is the base, a network with random weights.
    application : callable
        What built the base, for example ``keras.applications.ResNet50``.
    weights : str
        ``"imagenet"``: Keras's published weights, downloaded at first use; where the download fails the base keeps
        its random values, and the record says why. ``"none"``: random values. Anything else is the path of a weights
        file of the base.

    Returns
    -------
    keras.Model
        The base.

    Raises
    ------
    ConfigError
        If the file does not exist, is not a file of weights or does not fit the base.
    TrainingError
        If the weights that an unfinished training in this folder began with are gone, and it has no epoch yet.

    Notes
    -----
    A training that has begun goes on with what it began with: with random values although the published weights are
    there by now, or without the weights if they are gone, since its state holds them.
    """
    base = next((layer for layer in network.layers if isinstance(layer, keras.Model)), None)
    if base is None:
        raise ConfigError(f"{network.name} has no network among its layers that initial weights could be for")
    name = f"weights {application.__name__} {weights}"
    before = run.resolved.get(name)
    if before and before["used"] == "none" and before["reason"]:
        print(
            f"As when the trainings in this folder began, {application.__name__} starts from random values. To ask for "
            f"the weights again, delete {Path(*run.resolved.path.parts[-4:])} or choose another folder (out)."
        )
        run.weights = before
        return base
    try:
        record = load(base, application, weights)
        absent = record["reason"]
    except ConfigError as error:
        if not before:
            raise
        absent = str(error)
    if before and absent:
        run.weights = before | {"absent": absent}
    else:
        run.weights = run.resolved.keep(name, record)
    print(f"Initial weights: {run.weights['used']}{'; ' + run.weights['reason'] if run.weights['reason'] else ''}")
    return base


def load(base, application, weights):
    """Load weights into a base; return the record of `initial_weights`."""
    record = {"requested": weights, "used": weights, "sha256": None, "reason": None}
    if weights == "none":
        return record
    if weights == "imagenet":
        try:
            base.set_weights(download(application, base.input_shape[1:]).get_weights())
        except Exception as error:
            if not failed_download(error):
                raise
            reason = f"ImageNet weights were unavailable ({type(error).__name__}: {redact(str(error))[:200]})"
            return record | {"used": "none", "reason": reason}
        return record | {"sha256": digest(base)}
    path = Path(weights).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"weights: {weights!r} is no file; expected 'imagenet', 'none' or the path of a weights file for "
            f"{application.__name__}"
        )
    # A saved network can carry code (a Lambda layer); a file of weights holds numbers alone, and only such are read.
    if path.suffix.lower() not in (".h5", ".hdf5"):
        raise ConfigError(
            f"{path}: not a file of weights; expected .weights.h5 or .h5, which the save_weights() of "
            f"{application.__name__} without its top writes. A saved network (.keras) can carry code and is refused"
        )
    try:
        base.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise ConfigError(
            f"{path}: does not hold weights of {application.__name__} without its top ({error}); "
            "expected a file that its save_weights() wrote"
        ) from error
    return record | {"requested": path.name, "used": "path", "sha256": digest(base)}


def download(application, input_shape):
    """Return the application with ImageNet weights, from Keras's cache or server."""
    # Two models that start at once would download into the same file.
    lock = Path(tempfile.gettempdir()) / f"keras-weights-{os.getuid()}.lock"
    with filelock.FileLock(lock), patience(TIMEOUT):
        remove_broken(cache())
        return application(include_top=False, weights="imagenet", input_shape=input_shape)


def failed_download(error):
    """Return whether an error of ``keras.applications`` means that the weights did not come.

    Keras raises a bare ``Exception`` where the server does not answer, ``OSError`` where the connection breaks or the
    cache cannot be written, and ``ValueError`` for a file with the wrong hash. Anything else, such as a shape that the
    weights do not fit, is a mistake in the notebook.
    """
    return type(error) is Exception or isinstance(error, OSError) or "corrupted" in str(error)


def check(weights):
    """Refuse to begin a training whose initial weights are only known by their record.

    Raises
    ------
    TrainingError
        If the weights are gone; the record suffices only for a training that goes on from its state.
    """
    if weights.get("absent"):
        raise TrainingError(
            f"this folder's trainings begin with the weights {weights['requested']!r}, which are unavailable now: "
            f"{weights['absent']}. Restore them, give other weights, or choose another folder (out)"
        )


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
    return (home if os.access(home, os.W_OK) else Path("/tmp/.keras")) / "models"


def remove_broken(folder):
    """Remove files from Keras's cache that are no whole HDF5 files: a process was killed while it wrote them.

    Keras checks most weight files by hash and downloads them again; MobileNet-V1's have none, and half of one would
    be taken for the whole.
    """
    for path in Path(folder).glob("*.h5"):
        try:
            h5py.File(path, "r").close()
        except OSError:
            path.unlink(missing_ok=True)

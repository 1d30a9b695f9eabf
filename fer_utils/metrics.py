"""The metrics of Table 5.1, in the two kinds that the thesis's figures mix up.

Precision, recall and F1 come *thresholded* (``precision``, ``recall``, ``f1``): a class counts as predicted when
its probability is above 0.5, so that an image can have no predicted class, and the classes are pooled (micro).
That is what ``keras.metrics.Precision()`` and ``Recall()`` count on one-hot labels, and what the thesis's curves
seem to show. They also come as *macro* figures of the arg-max class (``macro_precision`` and so on), scikit-learn's
usual reading: one prediction per image, the mean over the seven classes.

Both kinds, for one set of images or for all resamples of a bootstrap, are computed by `precision_recall_f1`. The
functions take arrays and know nothing of models or files.
"""

import numpy as np
from sklearn import metrics as sk

from fer_utils.constants import CLASSES

THRESHOLD = 0.5

#: The figures that every epoch and every final evaluation reports, in the order in which they are shown.
METRICS = (
    "loss",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "auc",
    "macro_precision",
    "macro_recall",
    "macro_f1",
)

#: What columns and axes call them; the first six are those of Table 5.1.
METRIC_NAMES = {
    "accuracy": "Accuracy",
    "loss": "Loss (cross-entropy)",
    "precision": "Precision (above 0.5)",
    "recall": "Recall (above 0.5)",
    "f1": "F1 (above 0.5)",
    "auc": "AUC (pooled)",
    "macro_precision": "Precision (macro)",
    "macro_recall": "Recall (macro)",
    "macro_f1": "F1 (macro)",
}


def precision_recall_f1(hits, predicted, actual):
    """Precision, recall and F1 from counts, with 0 where a denominator is 0, as in Keras.

    Parameters
    ----------
    hits, predicted, actual : array_like of int, shapes that broadcast to (...)
        True positives, predicted positives and actual positives.

    Returns
    -------
    precision, recall, f1 : ndarray of float, shape (...)
        0..1.
    """
    hits, predicted, actual = np.broadcast_arrays(np.asarray(hits, dtype=np.float64), predicted, actual)

    def ratio(numerator, denominator):
        return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)

    return ratio(hits, predicted), ratio(hits, actual), ratio(2 * hits, predicted + actual)


def confusion_counts(y_true, y_pred):
    """Count images by true and predicted class; ndarray of int, shape (7, 7)."""
    n = len(CLASSES)
    return np.bincount(np.asarray(y_true) * n + np.asarray(y_pred), minlength=n * n).reshape(n, n)


def confusion_scores(confusion):
    """Scores of the arg-max class from confusion matrices.

    Parameters
    ----------
    confusion : ndarray of int, shape (..., 7, 7)
        True classes down, predicted classes across; leading axes are, for example, bootstrap resamples.

    Returns
    -------
    dict of str to ndarray
        ``accuracy``, ``macro_precision``, ``macro_recall``, ``macro_f1`` of shape (...), and ``class_precision``,
        ``class_recall``, ``class_f1`` of shape (..., 7).
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    scores = precision_recall_f1(hits, confusion.sum(axis=-2), confusion.sum(axis=-1))
    by_class = dict(zip(("precision", "recall", "f1"), scores, strict=True))
    return {
        "accuracy": hits.sum(axis=-1) / confusion.sum(axis=(-1, -2)),
        **{f"macro_{name}": values.mean(axis=-1) for name, values in by_class.items()},
        **{f"class_{name}": values for name, values in by_class.items()},
    }


def cross_entropies(y_true, y_proba):
    """Categorical cross-entropy of each image in nats, with Keras's clipping at 1e-7.

    scikit-learn's ``log_loss`` clips at the machine epsilon of the input's type, which makes one confident mistake
    weigh differently than in Keras's ``CategoricalCrossentropy``, whose value the training loss is.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        Labels in 0..6.
    y_proba : ndarray of float, shape (n, 7)
        Class probabilities, rows summing to 1.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    picked = np.asarray(y_proba, dtype=np.float64)[np.arange(len(y_true)), y_true]
    return -np.log(np.clip(picked, 1e-7, 1 - 1e-7))


def one_hot(y_true):
    """Labels as a 0/1 matrix of shape (n, 7)."""
    return np.eye(len(CLASSES), dtype=np.int64)[np.asarray(y_true)]


def thresholded(y_true, y_proba, threshold=THRESHOLD):
    """Micro-averaged precision, recall and F1 of the classes whose probability is above a threshold.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        Labels in 0..6.
    y_proba : ndarray of float, shape (n, 7)
        Class probabilities.
    threshold : float
        A class is predicted when its probability is *above* this, as in Keras.

    Returns
    -------
    dict
        ``precision``, ``recall``, ``f1`` in 0..1; 0 where nothing is predicted, as in Keras.
    """
    above = np.asarray(y_proba) > threshold
    hits = above[np.arange(len(y_true)), y_true].sum()
    found = precision_recall_f1(hits, above.sum(), len(y_true))
    return dict(zip(("precision", "recall", "f1"), map(float, found), strict=True))


def class_auc(y_true, y_proba):
    """One-vs-rest area under the ROC curve of each class (thesis, Fig. 5.4).

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        Labels in 0..6.
    y_proba : ndarray of float, shape (n, 7)
        Class probabilities.

    Returns
    -------
    dict of str to float or None
        0..1 for each class; None where the class, or its complement, has no image.
    """
    truth = one_hot(y_true)
    return {
        name: float(sk.roc_auc_score(truth[:, k], y_proba[:, k])) if 0 < truth[:, k].sum() < len(truth) else None
        for k, name in enumerate(CLASSES)
    }


def scores(y_true, y_proba):
    """Every metric of Table 5.1 on one set of images.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        Labels in 0..6.
    y_proba : ndarray of float, shape (n, 7)
        Class probabilities, rows summing to 1.

    Returns
    -------
    dict
        ``n`` and each name in `METRICS` (all in 0..1 but the loss, in nats), and ``per_class`` with the
        arg-max precision, recall, F1, support and one-vs-rest AUC of each class. ``auc`` pools all classes
        (micro), as ``keras.metrics.AUC()`` does on one-hot labels.

    Raises
    ------
    ValueError
        If there is no image or the shapes do not fit.
    """
    y_true = np.asarray(y_true)
    y_proba = np.asarray(y_proba)
    if y_proba.shape != (len(y_true), len(CLASSES)) or len(y_true) == 0:
        raise ValueError(
            f"expected labels (n,) and probabilities (n, {len(CLASSES)}) with n > 0, "
            f"got {y_true.shape} and {y_proba.shape}"
        )
    confusion = confusion_counts(y_true, y_proba.argmax(axis=1))
    found = confusion_scores(confusion)
    auc = class_auc(y_true, y_proba)
    return {
        "n": len(y_true),
        "loss": float(cross_entropies(y_true, y_proba).mean()),
        "accuracy": float(found["accuracy"]),
        **thresholded(y_true, y_proba),
        "auc": float(sk.roc_auc_score(one_hot(y_true).ravel(), y_proba.ravel())),
        **{name: float(found[name]) for name in ("macro_precision", "macro_recall", "macro_f1")},
        "per_class": {
            name: {
                **{metric: float(found[f"class_{metric}"][k]) for metric in ("precision", "recall", "f1")},
                "support": int(confusion[k].sum()),
                "auc": auc[name],
            }
            for k, name in enumerate(CLASSES)
        },
    }

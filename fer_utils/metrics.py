"""The metrics of Table 5.1, in the two kinds that the thesis's figures mix up.

Precision, recall and F1 come *thresholded* (``precision``, ``recall``, ``f1``): a class counts as predicted when
its probability is above 0.5, so that an image can have no predicted class, and the classes are pooled (micro).
That is what ``keras.metrics.Precision()`` and ``Recall()`` count on one-hot labels, and what the thesis's curves
seem to show. They also come as *macro* figures of the arg-max class (``macro_precision`` and so on), scikit-learn's
usual reading: one prediction per image, the mean over the seven classes.

scikit-learn does the arithmetic. The functions take arrays and know nothing of models or files.
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

LABELS = np.arange(len(CLASSES))


def cross_entropy(y_true, y_proba):
    """Mean categorical cross-entropy in nats, with Keras's clipping at 1e-7.

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
    float
        At least 0.
    """
    picked = np.asarray(y_proba, dtype=np.float64)[np.arange(len(y_true)), y_true]
    return float(-np.log(np.clip(picked, 1e-7, 1 - 1e-7)).mean())


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
    predicted = np.asarray(y_proba) > threshold
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        one_hot(y_true), predicted, average="micro", zero_division=0
    )
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1)}


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
    y_pred = y_proba.argmax(axis=1)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        y_true, y_pred, labels=LABELS, average=None, zero_division=0
    )
    auc = class_auc(y_true, y_proba)
    return {
        "n": len(y_true),
        "loss": cross_entropy(y_true, y_proba),
        "accuracy": float(sk.accuracy_score(y_true, y_pred)),
        **thresholded(y_true, y_proba),
        "auc": float(sk.roc_auc_score(one_hot(y_true).ravel(), y_proba.ravel())),
        "macro_precision": float(precision.mean()),
        "macro_recall": float(recall.mean()),
        "macro_f1": float(f1.mean()),
        "per_class": {
            name: {
                "precision": float(precision[k]),
                "recall": float(recall[k]),
                "f1": float(f1[k]),
                "support": int(support[k]),
                "auc": auc[name],
            }
            for k, name in enumerate(CLASSES)
        },
    }

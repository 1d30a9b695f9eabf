"""Macro precision and recall of the arg-max class as Keras metrics.

Keras has a macro F1 (``F1Score(average="macro")``), but its ``Precision`` and ``Recall`` count one class or pool
all of them.
"""

import keras


class ArgmaxCounts(keras.metrics.Metric):
    """Counts per class of true positives, predictions and labels, one prediction (the arg-max) per image.

    Parameters
    ----------
    classes : int
        Number of classes.
    name : str
        Name of the metric.
    """

    def __init__(self, classes=7, name=None):
        super().__init__(name=name)
        self.classes = classes
        self.hits, self.predicted, self.actual = (
            self.add_variable((classes,), "zeros", name=part) for part in ("hits", "predicted", "actual")
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Count one-hot labels (n, classes) against probabilities (n, classes)."""
        truth = keras.ops.cast(y_true, "float32")
        guess = keras.ops.one_hot(keras.ops.argmax(y_pred, axis=-1), self.classes, dtype="float32")
        self.hits.assign_add(keras.ops.sum(truth * guess, axis=0))
        self.predicted.assign_add(keras.ops.sum(guess, axis=0))
        self.actual.assign_add(keras.ops.sum(truth, axis=0))

    def get_config(self):
        """Return what the metric is rebuilt from."""
        return {"classes": self.classes, "name": self.name}


@keras.saving.register_keras_serializable(package="fer_utils")
class MacroPrecision(ArgmaxCounts):
    """Mean over the classes of precision; 0 for a class that is never predicted, as in scikit-learn."""

    def result(self):
        """Return the value, in 0..1."""
        return keras.ops.mean(keras.ops.divide_no_nan(self.hits, self.predicted))


@keras.saving.register_keras_serializable(package="fer_utils")
class MacroRecall(ArgmaxCounts):
    """Mean over the classes of recall; 0 for a class that does not occur, as in scikit-learn."""

    def result(self):
        """Return the value, in 0..1."""
        return keras.ops.mean(keras.ops.divide_no_nan(self.hits, self.actual))

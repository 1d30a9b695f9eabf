"""The metrics of Table 5.1 as Keras counts them while it trains; `fer_utils.metrics` has them for arrays."""

import keras


def table_5_1_metrics():
    """Return the metrics of Table 5.1 for ``Model.compile``.

    Returns
    -------
    list of keras.metrics.Metric
        ``accuracy``; ``precision``, ``recall`` and ``f1`` of the classes whose probability is above 0.5, all classes
        pooled, as Keras counts them and as the thesis's curves seem to; ``auc``, pooled; and ``macro_precision``,
        ``macro_recall`` and ``macro_f1``, means over the classes of the most probable class, as scikit-learn means
        them.
    """
    return [
        keras.metrics.CategoricalAccuracy(name="accuracy"),
        keras.metrics.Precision(name="precision"),
        keras.metrics.Recall(name="recall"),
        keras.metrics.F1Score(average="micro", threshold=0.5, name="f1"),
        keras.metrics.AUC(name="auc"),
        MacroPrecision(name="macro_precision"),
        MacroRecall(name="macro_recall"),
        keras.metrics.F1Score(average="macro", name="macro_f1"),
    ]


class ArgmaxCounts(keras.metrics.Metric):
    """Counts per class of true positives, predictions and labels: Keras has no macro precision or recall."""

    #: More is better, for callbacks that monitor it.
    _direction = "up"

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
    """Mean over the classes of recall; 0 for a class without images, as in scikit-learn."""

    def result(self):
        """Return the value, in 0..1."""
        return keras.ops.mean(keras.ops.divide_no_nan(self.hits, self.actual))

"""What a model's notebook calls, from the set-up to the record; everything that needs TensorFlow is in this room."""

import os

# What TensorFlow writes about the processor while it is imported cannot be switched off by a variable.
standard_error = os.dup(2)
with open(os.devnull, "w") as nowhere:
    os.dup2(nowhere.fileno(), 2)
try:
    import tensorflow  # noqa: F401
finally:
    os.dup2(standard_error, 2)
    os.close(standard_error)

from fer_utils.training.architecture import describe, summary_text
from fer_utils.training.callbacks import Progress, ScoreEpoch
from fer_utils.training.evaluation import closing_sentence, evaluate
from fer_utils.training.fast_layers import accelerate, set_batch_norm_momentum
from fer_utils.training.keras_metrics import table_5_1_metrics
from fer_utils.training.pipeline import batches
from fer_utils.training.resume import ExactResume
from fer_utils.training.run import begin
from fer_utils.training.weights import initial_weights

__all__ = [
    "ExactResume",
    "Progress",
    "ScoreEpoch",
    "accelerate",
    "batches",
    "begin",
    "closing_sentence",
    "describe",
    "evaluate",
    "initial_weights",
    "set_batch_norm_momentum",
    "summary_text",
    "table_5_1_metrics",
]

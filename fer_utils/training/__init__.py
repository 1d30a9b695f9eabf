"""What a model's notebook calls, from the set-up to the record; everything that needs TensorFlow is in this room."""

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

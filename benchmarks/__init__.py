"""Speed of training, beside PyTorch, stock Keras and other precisions: ``./run_all.sh benchmark``."""

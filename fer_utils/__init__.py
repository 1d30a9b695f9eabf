"""Helpers shared by the notebooks that reproduce a comparison of four CNNs on FER2013.

The package has six rooms, and imports go one way. What is common to all lies here: names, errors, files, words,
metrics, and which code made a number.

- ``data``: find FER2013, read it, say which copy it is, split it.
- ``training``: what a model's notebook calls; everything that needs TensorFlow.
- ``findings``: read a run folder; statistics, plots, explanations.
- ``claims``: the thesis's statements, each with the function that judges it.
- ``report``: the page made of the executed notebooks.
- ``batch``: the command line, the plan of a run, its jobs.

``findings``, ``claims`` and ``report`` read files only and never import TensorFlow.
"""

import os
import platform
import warnings

# TensorFlow reads this once, when it is first imported. By itself it computes with oneDNN only on processors with
# instructions for neural networks, which many laptops lack.
if platform.machine() == "x86_64":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# In JupyterLab each line on standard error is a red box, and TensorFlow writes some where nothing went wrong. Errors
# are exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Another: ImageNet weights were trained on 224x224 pixels. That holds for every network here; Keras says it of one.
warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square", UserWarning)

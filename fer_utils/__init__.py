"""Helpers shared by the notebooks that reproduce a comparison of four CNNs on FER2013.

Data flow one way, and the modules lie along it:

- *images to arrays*: ``sources`` finds the data, ``readers``, ``decoding`` and ``competition`` read it, ``synthetic``
  draws a stand-in, ``data`` loads and caches it; ``pixels``, ``reference``, ``comparison`` and ``fingerprint`` say
  which copy it is, ``audit`` what is odd about it, ``splits`` which images are for what.
- *arrays to predictions*: ``pipeline`` and ``augmentation`` make batches, ``weights`` gives a backbone its initial
  values; ``session`` begins a training, ``fitting`` does it, ``evaluation`` ends it, with ``onednn``, ``precision``,
  ``fast_layers``, ``callbacks``, ``macro``, ``state``, ``resolved`` and ``provenance``; ``privacy`` keeps secrets out
  of what is written.
- *predictions to findings*, without TensorFlow: ``results`` reads a run, ``metrics`` and ``statistics`` compute,
  ``explanations`` says what explains the differences, ``claims`` judges the thesis's statements by ``rules`` on an
  ``evidence``, ``plots``, ``architecture`` and ``diagrams`` draw, ``figures`` saves and shows, ``sentences``,
  ``overview``, ``summary``, ``checklist`` and ``words`` word it, ``report`` makes the page and ``sanitizer`` guards it.
- *the batch run*: ``cli``, ``planning``, ``batch``, ``execution``, ``progress``, ``lifeline``; the Snakefile says what
  makes what. ``benchmark``, ``benchmark_sides`` and ``benchmark_torch`` measure speed, ``benchmark_costs`` what
  else a run costs.
"""

import os
import platform

# Before anything that is imported from here imports TensorFlow.
if platform.machine() == "x86_64":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

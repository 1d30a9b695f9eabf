"""The names that every part of the package shares."""

#: The seven expressions in label order: a label is an index into this tuple (Table 3.1).
CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")

#: The three parts of FER2013 as its ``Usage`` column names them.
USAGES = ("Training", "PublicTest", "PrivateTest")

#: Height and width of an image in pixels (thesis, section 3.1).
IMAGE_SIZE = 48

#: Columns of ``predictions.parquet`` that hold the class probabilities, in label order.
PROBABILITY_COLUMNS = tuple(f"p_{name}" for name in CLASSES)

#: Table 5.1, as the parameters of a model's notebook. A run with other values is not one of the thesis's setting.
THESIS_SETTINGS = {"epochs": 45, "batch_size": 64, "learning_rate": 0.001}

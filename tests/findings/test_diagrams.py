"""Networks: their description, what is counted in it, and the drawing."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from fer_utils.errors import ConfigError, TrainingError
from fer_utils.findings import diagrams, model_figures
from fer_utils.training import architecture


def with_head(base, trainable=True):
    """Nest a base in a model of our own, as the notebooks do."""
    base.trainable = trainable
    grey = keras.Input((48, 48, 1))
    x = base(layers.Concatenate(name="grey_to_rgb")([grey, grey, grey]))
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    x = layers.Dense(32, activation="relu")(x)
    return keras.Model(grey, layers.Dense(7, activation="softmax")(x), name=f"{base.name}_fer")


def plain_cnn():
    convolutions = [layers.Conv2D(8, 3, padding="same", activation="relu"), layers.BatchNormalization()]
    convolutions += [layers.Conv2D(8, 3, padding="same", activation="relu"), layers.BatchNormalization()]
    head = [
        layers.Conv2D(16, 5, strides=2),
        layers.LeakyReLU(),
        layers.Flatten(),
        layers.Dense(7, activation="softmax"),
    ]
    return keras.Sequential(
        [keras.Input((48, 48, 1)), layers.Rescaling(1 / 255), *convolutions, layers.MaxPool2D(), *head], name="plain"
    )


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.convolution, self.flatten, self.dense = layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(7)

    def call(self, x):
        return self.dense(self.flatten(self.convolution(x)))


BASES = {"resnet50": "ResNet50", "vgg16": "VGG16", "mobilenet_v3": "MobileNetV3Small", "mobilenet_v1": "MobileNet"}


@pytest.fixture(scope="module")
def models():
    keras.utils.clear_session()
    options = {"weights": None, "include_top": False, "input_shape": (48, 48, 3)}
    bases = {name: getattr(keras.applications, base)(**options) for name, base in BASES.items()}
    nested = {name: with_head(base, trainable=name != "resnet50") for name, base in bases.items()}
    own = Subclassed()
    own(np.zeros((1, 48, 48, 1), np.float32))
    return nested | {"plain": plain_cnn(), "subclassed": own}


@pytest.fixture(scope="module")
def described(models):
    return {name: json.loads(json.dumps(architecture.describe(model))) for name, model in models.items()}


def test_description_agrees_with_keras(models, described):
    for name, model in models.items():
        found = described[name]
        size = found["parameters"]
        assert size["total"] == model.count_params() == sum(layer["parameters"] for layer in found["layers"])
        assert size["trainable"] == sum(int(w.numpy().size) for w in model.trainable_weights)
        assert size["total"] == size["trainable"] + size["non_trainable"]
        if name != "subclassed":
            assert found["output_shape"] == [7] and found["input_shape"] == [48, 48, 1]


def test_layers_hold_their_settings(described):
    convolution = next(layer for layer in described["plain"]["layers"] if layer["output_shape"] == [22, 22, 8] or
                       layer["settings"].get("filters") == 16)  # fmt: skip
    assert convolution["settings"] == {
        "activation": "linear", "filters": 16, "kernel_size": [5, 5], "strides": [2, 2], "use_bias": True,
    }  # fmt: skip
    assert convolution["parameters"] == 5 * 5 * 8 * 16 + 16
    assert convolution["output_shape"] == [10, 10, 16]  # (24 - 5) // 2 + 1


def test_network_that_is_not_built_is_refused():
    with pytest.raises(TrainingError, match="not a built Keras model"):
        architecture.describe(keras.Sequential([layers.Dense(2)]))


def test_summary_is_whole_at_its_width(models):
    text = architecture.summary_text(models["vgg16"])
    assert max(map(len, text.splitlines())) == 100 and "Param #" in text
    assert "block5_conv3" in text and f"{models['vgg16'].count_params():,}" in text


@pytest.mark.parametrize(
    "base, expected",
    [
        ("ResNet50", 50),
        ("VGG16", 16),
        ("MobileNet", 28),  # Howard et al. 2017: 28 layers, depthwise and pointwise counted apart
        # Howard et al. 2019, Table 2: 11 blocks of expansion (but the first), depthwise and projection; a convolution
        # before and after them; two classify. Squeeze-and-excitation stands beside the path.
        ("MobileNetV3Small", 10 + 11 + 11 + 2 + 2),
    ],
)
def test_layers_are_counted_as_in_the_papers(base, expected):
    whole = getattr(keras.applications, base)(weights=None, input_shape=(48, 48, 3), classes=7)
    _, data = diagrams.draw(architecture.describe(whole))
    assert data["weight_layers"].sum() == expected


def test_resnet50_stages_are_those_of_its_paper(described):
    _, data = diagrams.draw(described["resnet50"])
    assert data["output_shape"].iloc[0] == "48×48×3"  # the zero padding before the first convolution aside
    rows = data[data["part"] == "resnet50"].set_index("stage")
    assert rows["weight_layers"].to_dict() == {"conv1": 1, "conv2": 9, "conv3": 12, "conv4": 18, "conv5": 9}
    assert rows.at["conv4", "blocks"] == "6 residual blocks; of 1×1, 3×3, 1×1; batch norm, ReLU"
    assert rows.at["conv5", "output_shape"] == "2×2×2048"


def test_mobilenet_v3_stages_hold_whole_blocks(described):
    _, data = diagrams.draw(described["mobilenet_v3"])
    data = data[data["part"] == "MobileNetV3Small"]
    assert list(data["output_shape"]) == ["24×24×16", "12×12×16", "6×6×24", "3×3×48", "2×2×576"]
    assert [text.split("; ")[0] for text in data["blocks"]] == [
        "1 conv 3×3", "1 depthwise block", "2 depthwise blocks", "5 depthwise blocks", "3 depthwise blocks",
    ]  # fmt: skip
    assert [text.split(", ")[-1] for text in data["blocks"]] == [
        "hard swish", "ReLU", "ReLU", "hard swish", "hard swish",
    ]  # fmt: skip


def test_stages_of_a_plain_network_end_with_pooling(described):
    _, data = diagrams.draw(described["plain"])
    assert list(data["stage"]) == ["input", "stage 1", "stage 2", "classifier"]
    assert list(data["blocks"]) == [
        "rescaling", "2 conv 3×3; max pool 2×2; batch norm, ReLU", "1 conv 5×5; leaky ReLU", "dense 7; softmax",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [*BASES, "plain", "subclassed"])
def test_drawing_holds_every_layer_and_stays_on_the_page(described, name):
    figure, data = diagrams.draw(described[name])
    assert data["parameters"].sum() == described[name]["parameters"]["total"]
    assert data["trainable"].sum() == described[name]["parameters"]["trainable"]
    (ax,) = figure.axes
    figure.canvas.draw()
    width, height = figure.get_size_inches() * figure.dpi
    boxes = [text.get_window_extent() for text in ax.texts]
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
    assert {"input", "classifier"} < {text.get_text() for text in ax.texts}


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3"])
def test_columns_of_text_do_not_overlap(described, name):
    figure, data = diagrams.draw(described[name])
    figure.canvas.draw()
    texts = [text for text in figure.axes[0].texts if "\n" in text.get_text()]
    boxes = sorted((text.get_window_extent() for text in texts), key=lambda box: box.x0)
    assert len(boxes) == len(data)
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


def test_frozen_base_is_marked(described):
    def words(name):
        return {text.get_text() for text in diagrams.draw(described[name])[0].axes[0].texts}

    assert "resnet50 (frozen)" in words("resnet50") and "vgg16 (trained)" in words("vgg16")


def test_a_network_is_shown_from_its_description_alone(described, tmp_path):
    read = json.loads(json.dumps(described["plain"]))
    model_figures.show_network(read, model="my_model", label="Mine", folder=tmp_path)
    assert {path.suffix for path in tmp_path.glob("fig-my_model.1-network-my_model.*")} == {".svg", ".png", ".csv"}


def test_branches_outside_of_known_blocks_are_told(described):
    assert not any(diagrams.has_branches(network) for network in described.values())
    grey = keras.Input((48, 48, 1))
    x = layers.Conv2D(4, 3, padding="same")(grey)
    x = layers.Concatenate()([layers.Conv2D(4, size, padding="same")(x) for size in (1, 3, 5)])
    network = keras.Model(grey, layers.Dense(7, activation="softmax")(layers.Flatten()(x)))
    assert diagrams.has_branches(architecture.describe(network))


@pytest.mark.parametrize(
    ("end", "shape", "text"),
    [("input", [48, 48, 3], "input has the shape .48, 48, 3.; expected .48, 48, 1., grey"),
     ("output", [6], "output has the shape .6.; expected .7., a probability per class")],
)  # fmt: skip
def test_a_network_of_other_images_or_classes_is_refused_before_it_is_trained(described, tmp_path, end, shape, text):
    with pytest.raises(ConfigError, match=f"make_model: the network's {text}"):
        network = described["plain"] | {f"{end}_shape": shape}
        model_figures.show_network(network, model="my_model", label="Mine", folder=tmp_path)

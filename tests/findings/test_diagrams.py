import io
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from fer_utils.errors import FerError
from fer_utils.findings import diagrams
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
    return keras.Sequential(
        [
            keras.Input((48, 48, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPool2D(),
            layers.Conv2D(16, 5, strides=2),
            layers.LeakyReLU(),
            layers.Flatten(),
            layers.Dense(7, activation="softmax"),
        ],
        name="plain",
    )


BASES = {
    "resnet50": lambda: keras.applications.ResNet50,
    "vgg16": lambda: keras.applications.VGG16,
    "mobilenet_v3": lambda: keras.applications.MobileNetV3Small,
    "mobilenet_v1": lambda: keras.applications.MobileNet,
}


@pytest.fixture(scope="module")
def models():
    keras.utils.clear_session()
    options = {"weights": None, "include_top": False, "input_shape": (48, 48, 3)}
    nested = {name: with_head(get()(**options), trainable=name != "resnet50") for name, get in BASES.items()}
    return nested | {"plain": plain_cnn()}


@pytest.fixture(scope="module")
def described(models):
    return {name: json.loads(json.dumps(architecture.describe(model))) for name, model in models.items()}


def test_description_agrees_with_keras(models, described):
    for name, model in models.items():
        found = described[name]
        assert (
            found["parameters"]["total"]
            == model.count_params()
            == sum(layer["parameters"] for layer in found["layers"])
        )
        assert found["parameters"]["trainable"] == sum(int(w.numpy().size) for w in model.trainable_weights)
        assert found["parameters"]["total"] == (found["parameters"]["trainable"] + found["parameters"]["non_trainable"])
        assert found["output_shape"] == [7] and found["input_shape"] == [48, 48, 1]


def test_layers_hold_their_settings_and_what_they_read(described):
    plain = {layer["class"]: layer for layer in described["plain"]["layers"]}
    conv = plain["Conv2D"]  # the last one
    assert conv["settings"]["filters"] == 16 and conv["settings"]["kernel_size"] == [5, 5]
    assert conv["settings"]["strides"] == [2, 2] and conv["parameters"] == 5 * 5 * 8 * 16 + 16
    assert conv["output_shape"] == [10, 10, 16]  # (24 - 5) // 2 + 1
    assert conv["inbound"] == [plain["MaxPooling2D"]["name"]]
    resnet = {layer["name"]: layer for layer in architecture.base_of(described["resnet50"])["layers"]}
    assert resnet["conv2_block1_add"]["inbound"] == ["conv2_block1_0_bn", "conv2_block1_3_bn"]
    assert resnet["conv2_block2_add"]["inbound"] == ["conv2_block1_out", "conv2_block2_3_bn"]


def test_bare_operations_between_layers_are_kept(models, described):
    base = architecture.base_of(described["mobilenet_v3"])
    operations = [layer for layer in base["layers"] if layer["class"].startswith("ops.")]
    keras_base = models["mobilenet_v3"].get_layer(base["name"])
    assert len(operations) == len(keras_base.operations) - len(keras_base.layers) > 0


def test_resnet50_has_fifty_weight_layers():
    whole = keras.applications.ResNet50(weights=None, input_shape=(48, 48, 3), classes=7)
    counts = architecture.count_layers(architecture.describe(whole))
    assert counts["weight_layers"] == 50 and counts["convolution"] == 49 and counts["dense"] == 1
    assert counts["projection"] == 4  # one for each change of width
    every = sum(isinstance(layer, layers.Conv2D) for layer in whole.layers)
    assert counts["convolution"] + counts["projection"] == every


def test_vgg16_has_thirteen_convolutions_and_three_dense_layers():
    whole = keras.applications.VGG16(weights=None, input_shape=(48, 48, 3), classes=7)
    counts = architecture.count_layers(architecture.describe(whole))
    assert (counts["convolution"], counts["dense"], counts["weight_layers"]) == (13, 3, 16)


def test_mobilenet_counts(described):
    v3 = architecture.count_layers(architecture.base_of(described["mobilenet_v3"]))
    # Howard et al. 2019, Table 2: 11 blocks, 9 of them with squeeze-and-excitation (two convolutions each);
    # the first block does not expand, and a convolution stands before and after them.
    assert v3["depthwise"] == 11 and v3["squeeze_excite"] == 18 and v3["convolution"] == 10 + 11 + 2
    v1 = architecture.count_layers(architecture.base_of(described["mobilenet_v1"]))
    assert v1["depthwise"] == 13 and v1["convolution"] == 14


def test_resnet50_stages_are_those_of_its_paper(described):
    base = architecture.stages(architecture.base_of(described["resnet50"]))
    by_name = {stage["name"]: stage for stage in base}
    assert {name: stage["weight_layers"] for name, stage in by_name.items()} == {
        "input": 0, "conv1": 1, "conv2": 9, "conv3": 12, "conv4": 18, "conv5": 9,
    }  # fmt: skip
    assert by_name["conv4"]["kernel_sizes"] == [1, 3, 1]
    first, others = by_name["conv4"]["blocks"]
    assert (first["shortcut"], first["repeats"]) == ("projection", 1)
    assert (others["shortcut"], others["repeats"]) == ("identity", 5)
    assert others["lines"] == ["1×1 conv 256", "3×3 conv 256", "1×1 conv 1024"]
    assert by_name["conv5"]["output_shape"] == [2, 2, 2048]


def test_stages_account_for_every_parameter_and_weight_layer(described):
    for found in described.values():
        stages = architecture.stages(found)
        assert sum(stage["parameters"] for stage in stages) == found["parameters"]["total"]
        assert sum(stage["trainable_parameters"] for stage in stages) == found["parameters"]["trainable"]
        assert sum(stage["weight_layers"] for stage in stages) == found["counts"]["weight_layers"]


def test_stages_of_a_plain_network_end_with_pooling(described):
    stages = architecture.stages(described["plain"])
    assert [stage["name"] for stage in stages] == ["input", "convolution 1", "convolution 2", "classifier"]
    boxes = [(block["lines"], block["repeats"]) for block in stages[1]["blocks"]]
    assert boxes == [(["3×3 conv 8"], 2), (["2×2 max pool /2"], 1)]
    assert stages[1]["notes"] == ["batch norm", "ReLU"] and stages[2]["notes"] == ["LeakyReLU"]
    assert stages[3]["blocks"][-1]["lines"] == ["dense 7 softmax"]


def test_layer_named_by_hand_keeps_its_name(described):
    blocks = architecture.stages(described["vgg16"])[0]["blocks"]
    assert [block["lines"] for block in blocks] == [["48×48×1"], ["grey to rgb"]]
    assert architecture.stages(described["plain"])[0]["blocks"][1]["lines"] == ["Rescaling"]


def test_mobilenet_v3_blocks_and_activations(described):
    stages = architecture.stages(described["mobilenet_v3"])
    residual = [block["repeats"] for stage in stages for block in stage["blocks"] if block["shortcut"] == "identity"]
    # In the paper's table a block keeps its size and width in rows 3, 5, 6, 8, 10 and 11.
    assert sum(residual) == 6
    notes = [(stage["output_shape"][0], stage["notes"][-1]) for stage in stages if stage["part"] == "MobileNetV3Small"]
    assert notes == [
        (24, "hard swish"), (12, "ReLU"), (6, "ReLU"), (3, "hard swish"), (2, "hard swish"), (2, "hard swish"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", [*BASES, "plain"])
@pytest.mark.parametrize("view", ["flow", "blocks"])
def test_pictures_name_every_stage_and_stay_on_the_page(described, name, view):
    figure = diagrams.draw(described[name], view)
    (ax,) = figure.axes
    figure.canvas.draw()
    texts = [text.get_text() for text in ax.texts]
    for stage in architecture.stages(described[name]):
        assert stage["name"] in texts
    width, height = figure.get_size_inches() * figure.dpi
    for text in ax.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text.get_text()
    assert 8 <= figure.get_size_inches()[0] <= 13 and figure.get_size_inches()[1] <= 12


def test_frozen_base_is_marked(described):
    def words(name):
        (ax,) = diagrams.draw_flow(described[name]).axes
        return [text.get_text() for text in ax.texts]

    assert "resnet50 (frozen)" in words("resnet50") and "vgg16 (trained)" in words("vgg16")


def test_same_description_same_picture(described):
    pictures = []
    for _ in range(2):
        file = io.BytesIO()
        diagrams.draw_blocks(described["plain"]).savefig(file, format="png", metadata={"Software": None})
        pictures.append(file.getvalue())
    assert pictures[0] == pictures[1]


def test_drawing_needs_no_keras(described, tmp_path):
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps(described["plain"]), encoding="utf-8")
    code = (
        "import json, sys; from fer_utils.findings import diagrams; "
        "a = json.load(open(sys.argv[1], encoding='utf-8')); diagrams.draw(a); diagrams.draw(a, 'blocks'); "
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_summary_is_whole_at_its_width(models):
    text = architecture.summary_text(models["vgg16"])
    lines = text.splitlines()
    assert max(map(len, lines)) == 100 and "Param #" in text
    assert "block5_conv3" in text and f"{models['vgg16'].count_params():,}" in text


def test_what_cannot_be_described_is_refused():
    with pytest.raises(FerError, match="not a built Keras model"):
        architecture.describe(keras.Sequential([layers.Dense(2)]))
    with pytest.raises(FerError, match="use one of flow, blocks"):
        diagrams.draw({}, "sideways")


def test_subclassed_model_is_refused():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Own()
    model(np.zeros((1, 3)))
    with pytest.raises(FerError, match="subclassed"):
        architecture.describe(model)

"""Claims about what the notebooks follow: networks, training and evaluation (chapter 3.2.5, Table 5.1).

Judged by what the run recorded about each training, whatever its length and data.
"""

import numpy as np

from fer_utils.claims.checks import check, fact, judges, unknown
from fer_utils.claims.networks import base_of, classes_of, flat_layers, has_relu, network, own_layers, setting
from fer_utils.findings.results import command
from fer_utils.words import listed, plural

#: How far a recorded F1 may be from that of its precision and recall: rounding of single precision.
F1_ROUNDING = 1e-3


def of_each(e, claim, judge):
    """One check for each model: `judge` takes every training of it."""

    @check
    def one(model):
        e.built(model)
        found = [result for variant in ("", "_scratch", "_plain") for result in e.run.by_name(model + variant)]
        return judge(found or [e.built(model)])

    return [one(model) for model in claim.models]


def plain(value):
    """Names without case and underscores: ``CategoricalCrossentropy`` is ``categorical_crossentropy``."""
    return value.lower().replace("_", "") if isinstance(value, str) else value


@judges("S01")
def table_5_1(e, claim):
    """Every training's recorded hyperparameters are Table 5.1's, and its metrics are recorded each epoch."""

    def judge(results):
        off, short = [], []
        for result in results:
            parameters = result.record["parameters"]
            other = [
                f"{name} {parameters.get(name)}"
                for name, value in claim.stated["parameters"].items()
                if plain(parameters.get(name)) != plain(value)
            ]
            other += [f"no {name}" for name in claim.stated["metrics"] if name not in result.history]
            (short if "shortened" in result.reasons and all(o.startswith("epochs") for o in other) else off).extend(
                f"{result.label} (seed {result.seed}): {text}" for text in other
            )
        if off or not short:
            return fact(not off, "; ".join(off) or "as stated")
        return unknown("a shortened run sets its own number of epochs", "; ".join(short))

    return of_each(e, claim, judge)


@judges("S02")
def layers_of_cnn(e, claim):
    """A Sequential: every Conv2D with ReLU, then batch normalisation; pooling, Flatten, hidden Dense layers, softmax."""
    return [cnn_convolutions(e), has_layers(e, "traditional_cnn", claim.stated["layers"]), hidden_dense(e), softmax(e)]


@check
def cnn_convolutions(e):
    """Every convolution applies ReLU and is followed by batch normalisation, in a Sequential."""
    architecture = network(e, "traditional_cnn")
    layers = flat_layers(architecture)
    at = [i for i, name in enumerate(classes_of(layers)) if name == "Conv2D"]
    good = [
        i
        for i in at
        if has_relu(layers[i : i + 3])
        and next((n for n in classes_of(layers[i + 1 : i + 3]) if n not in ("ReLU", "Activation")), "")
        == "BatchNormalization"
    ]
    text = f"{len(good)} of {len(at)} convolutions with ReLU and batch normalisation, {architecture['class']}"
    return fact(bool(at) and len(good) == len(at) and architecture["class"] == "Sequential", text)


@check
def hidden_dense(e):
    """More than one dense layer stands before the output; the text has the plural."""
    n = classes_of(flat_layers(network(e, "traditional_cnn"))).count("Dense") - 1
    return fact(n > 1, plural(n, "hidden dense layer"))


@check
def softmax(e):
    """The last layer is dense with a softmax."""
    last = flat_layers(network(e, "traditional_cnn"))[-1]
    return fact(
        last["class"] == "Dense" and setting(last, "activation") == "softmax",
        f"last layer {last['class']}, {setting(last, 'activation')}",
    )


@check
def has_layers(e, model, wanted):
    """The notebook's own layers hold each of these classes."""
    names = classes_of(own_layers(network(e, model)))
    missing = [name for name in wanted if name not in names]
    text = ", ".join(f"{names.count(name)} {name}" for name in wanted)
    return fact(not missing, text, wrong=f"no {listed(missing)}")


@check
def starts_from(e, model, start):
    """The training started from these weights; where ImageNet's were unavailable, the run cannot tell."""
    result = e.built(model)
    used, reason = result.record["weights"]["used"], result.record["weights"].get("reason")
    text = f"weights: {used}"
    if used != start and result.record["weights"]["requested"] == start:
        why = (reason or "").partition(" (")[0]
        return unknown(f"{e.label(model)} asked for {start} weights and did not get them ({why})", text)
    return fact(used == start, text)


@check
def built_on(e, model, base):
    """The network is a Sequential around this base."""
    architecture = network(e, model)
    found = base_of(architecture)
    text = f"{architecture['class']} around {found['name'] if found else 'no base'}"
    return fact(architecture["class"] == "Sequential" and bool(found) and plain(found["name"]) == plain(base), text)


@check
def augmented(e, model, wanted):
    """Training images are augmented, with these settings above 0."""
    on = [name for name, value in e.built(model).record.get("augmentation", {}).items() if value]
    missing = [name for name in wanted if name not in on]
    return fact(
        bool(on) and not missing,
        f"augmented: {', '.join(on) or 'no'}",
        wrong=f"without {listed(missing)}" if missing else "",
    )


@judges("S03")
def resnet_as_described(e, claim):
    """ResNet-50 from ImageNet weights in a Sequential with the stated layers; training images rotated and flipped."""
    return [
        starts_from(e, "resnet50", "imagenet"),
        built_on(e, "resnet50", "resnet50"),
        has_layers(e, "resnet50", claim.stated["layers"]),
        augmented(e, "resnet50", claim.stated["augmentation"]),
    ]


@judges("S04")
def vgg_as_described(e, claim):
    """VGG-16 is built in the code without pretrained weights, from the stated layers; training images are augmented."""
    return [
        starts_from(e, "vgg16", "none"),
        has_layers(e, "vgg16", claim.stated["layers"]),
        augmented(e, "vgg16", []),
    ]


@judges("S05")
def mobilenet_as_described(e, claim):
    """MobileNetV3Small from ImageNet weights, its top trained; training images rotated, shifted and flipped."""
    return [
        starts_from(e, "mobilenet_v3", "imagenet"),
        built_on(e, "mobilenet_v3", "MobileNetV3Small"),
        top_is_trained(e),
        augmented(e, "mobilenet_v3", claim.stated["augmentation"]),
    ]


@check
def top_is_trained(e):
    """The last convolution of MobileNet-V3's base is trained."""
    base = base_of(network(e, "mobilenet_v3"))
    if base is None:
        return fact(False, "no base")
    layers = [layer for layer in flat_layers(base) if layer["parameters"]]
    trained = [layer for layer in layers if layer["trainable_parameters"]]
    last = [layer for layer in layers if layer["class"] == "Conv2D"][-1]
    return fact(
        bool(last["trainable_parameters"]), f"{len(trained)} of {len(layers)} base layers with weights are trained"
    )


@judges("S06")
def callbacks_and_curves(e, claim):
    """The learning rate never rises, the best epoch is kept, five curves are recorded, and F1 is that of P and R."""
    return [part for judge in (schedule, recorded, f1_of_p_and_r) for part in of_each(e, claim, judge)]


def schedule(results):
    """ReduceLROnPlateau and ModelCheckpoint, by what they leave in the history."""
    off, texts = [], []
    for result in results:
        rates = result.history["learning_rate"].to_numpy(dtype=float)
        accuracy = result.history["val_accuracy"].to_numpy(dtype=float)
        if len(rates) < 2:
            return unknown(f"{result.label} has one epoch, which no schedule can change")
        kept = int(result.record["epochs"]["best"])
        texts.append(f"{result.label}: epoch {kept} kept, {int((np.diff(rates) < 0).sum())} reductions")
        if (np.diff(rates) > 0).any():
            off.append(f"{result.label}: the learning rate rose")
        if not 1 <= kept <= len(accuracy) or accuracy[kept - 1] < np.nanmax(accuracy):
            off.append(f"{result.label}: epoch {kept} is not the one with the best validation accuracy")
    return fact(not off, "; ".join(texts), wrong="; ".join(off))


def recorded(results):
    """Accuracy, loss, precision, recall and F1 of training and validation are in the history."""
    columns = [prefix + n for prefix in ("", "val_") for n in ("accuracy", "loss", "precision", "recall", "f1")]
    missing = [f"{result.label}: {name}" for result in results for name in columns if name not in result.history]
    return fact(not missing, wrong=f"no curve of {', '.join(missing)}")


def f1_of_p_and_r(results):
    """In every epoch F1 is 2PR / (P + R) of that epoch's validation precision and recall."""
    off = []
    for result in results:
        if not {"val_precision", "val_recall", "val_f1"} <= set(result.history):
            continue
        p, r, f1 = (result.history[f"val_{name}"] for name in ("precision", "recall", "f1"))
        gap = (f1 - (2 * p * r / (p + r)).where(p + r > 0, 0.0)).abs().max()
        if not gap <= F1_ROUNDING:
            off.append(f"{result.label}: F1 is off by up to {gap:.3f}")
    return fact(not off, wrong="; ".join(off))


@judges("S07")
def saved_files(e, claim):
    """Each model's folder holds the network and the weights in the stated forms (.keras for the traditional CNN)."""
    return [files_of(e, model, names) for model, names in claim.stated["files"].items()]


@check
def files_of(e, model, wanted):
    """One model's files; without any of them the network was deleted or not saved, which refutes nothing."""
    result = e.built(model)
    missing = [name for name in wanted if not (result.folder / name).exists()]
    if len(missing) == len(wanted):
        return unknown(f"no trained network of {result.label} lies in the run's folder: deleted, or not saved")
    there = listed(name for name in wanted if name not in missing)
    return fact(not missing, f"{result.label}: {there}", wrong=f"{result.label}: no {listed(missing)}")


@judges("S10")
def validated_on_the_test_set(e, claim):
    """Under the thesis's protocol, the images validated on are those tested on, and a fifth of all."""
    found = [result for result in e.run.models if result.record["protocol"] == "thesis"]
    if not found:
        return [
            unknown(f"needs the thesis's protocol: {command(e.run, ['resnet50_thesis_protocol'])}", "protocol: sound")
        ]
    names = listed(dict.fromkeys(result.label for result in found))
    curves = [result.history[["val_accuracy", "test_accuracy"]] for result in found]
    apart = [r.label for r, c in zip(found, curves, strict=True) if not (c.iloc[:, 0] == c.iloc[:, 1]).all()]
    same = fact(
        not apart, f"{names}: validated on the test images", wrong=f"{listed(apart)}: validated on other images"
    )
    shares = {}
    for result in found:
        split = result.record["split"]
        if not (split["images_per_class"] or split["test_images_per_class"]):
            test = split["public"] + split["private"]
            shares[result.label] = test / (test + split["train"])
    off = [name for name, share in shares.items() if abs(share - claim.stated["share"]) > claim.tolerances["share"]]
    text = ", ".join(f"{name}: {share:.1%} test images" for name, share in shares.items())
    return [same, fact(not off, text) if shares else unknown("only some images of each class were used")]


@judges("S14")
def tuned_on_which_images(e, claim):
    """None: the thesis does not report its experiments, so nothing can be repeated; here each value is Table 5.1's."""
    return [unknown("the thesis does not say what was tried, nor on which images; here nothing was searched for")]

"""Rules about how the networks are built and trained (thesis, chapter 3.2.5 and Table 5.1).

A statement about the setup is reproduced when this run followed it, or when the built network confirms it. What a
run did otherwise on purpose (a shorter profile, random initialisation, the sound protocol) is not tested by it.
"""

import re

import numpy as np

from fer_utils.claims.evidence import PRETRAINED, weights_reason
from fer_utils.claims.rules import Finding, rule
from fer_utils.words import listed

#: How far a recorded F1 may be from the one of its precision and recall: rounding of single precision.
F1_ROUNDING = 1e-3


def flat_layers(architecture):
    """All layers of a network in order, those of nested networks in their place.

    Parameters
    ----------
    architecture : dict
        ``architecture.json``.

    Returns
    -------
    list of dict
    """
    layers = []
    for layer in architecture.get("layers", []):
        layers += flat_layers(layer) if "layers" in layer else [layer]
    return layers


def base_of(architecture):
    """Return the largest model nested in a network; None if there is none."""
    nested = [layer for layer in architecture["layers"] if "layers" in layer]
    return max(nested, key=lambda layer: layer["parameters"], default=None)


def own_layers(architecture):
    """Layers that the notebook added, without those of a nested base."""
    return [layer for layer in architecture.get("layers", []) if "layers" not in layer]


def plain(value):
    """Compare names without case and underscores: ``CategoricalCrossentropy``, ``categorical_crossentropy``."""
    return value.lower().replace("_", "") if isinstance(value, str) else value


def no_network(evidence, model):
    """Return the finding for a model whose ``architecture.json`` is not there."""
    return Finding(None, note=f"{evidence.label(model)} left no architecture.json")


@rule("Every model's recorded parameters are {value}, and {metrics} are recorded each epoch; judged in a paper run")
def hyperparameters(evidence, claim, value, metrics):
    """Judge Table 5.1."""
    departures, short = [], []
    for model in claim.models:
        for result in evidence.results(model):
            parameters = result.record["parameters"]
            off = [
                f"{name} {parameters.get(name)}"
                for name, wanted in value.items()
                if plain(parameters.get(name)) != plain(wanted)
            ]
            off += [f"no {name}" for name in metrics if name not in result.history]
            if off:
                departures.append(f"{result.label} (seed {result.seed}): {', '.join(off)}")
            if result.record["profile"] != "paper":
                short.append(result.record["profile"])
    holds = None if short else not departures
    note = f"a {listed(dict.fromkeys(short))} run sets its own lengths" if short else ""
    text = "; ".join(departures) if departures else "as stated"
    ran = any(evidence.results(model) for model in claim.models)
    return Finding(holds, text if ran else "", note=note or text)


@rule("Every Conv2D applies ReLU and is followed by BatchNormalization, in a Sequential model")
def normalised_convolutions(evidence, model):
    """Judge the convolutions of the traditional CNN."""
    architecture = evidence.results(model)[0].architecture
    layers = flat_layers(architecture)
    if not layers:
        return no_network(evidence, model)
    at = [i for i, layer in enumerate(layers) if layer["class"] == "Conv2D"]
    good = [i for i in at if has_relu(layers[i : i + 3]) and normalised(layers[i + 1 : i + 3])]
    sequential = architecture["class"] == "Sequential"
    text = f"{len(good)} of {len(at)} convolutions with ReLU and batch normalisation, {architecture['class']}"
    return Finding(bool(at) and len(good) == len(at) and sequential, text, note=text)


def has_relu(layers):
    """Whether a convolution, or an activation right after it, applies ReLU."""
    if layers[0]["settings"].get("activation") == "relu":
        return True
    after = [layer for layer in layers[1:] if layer["class"] in ("ReLU", "Activation")]
    return any(layer["class"] == "ReLU" or layer["settings"].get("activation") == "relu" for layer in after)


def normalised(layers):
    """Whether batch normalisation comes next, with no more than an activation before it."""
    names = [layer["class"] for layer in layers if layer["class"] not in ("ReLU", "Activation")]
    return bool(names) and names[0] == "BatchNormalization"


@rule("The network holds layers of each kind: {kinds}; beside a pretrained base, its own layers do")
def layer_kinds(evidence, model, kinds):
    """Judge which kinds of layers there are."""
    architecture = evidence.results(model)[0].architecture
    layers = own_layers(architecture)
    if not layers:
        return no_network(evidence, model)
    found = {kind: sum(layer["class"] == kind for layer in layers) for kind in kinds}
    missing = [kind for kind, n in found.items() if not n]
    return Finding(
        not missing,
        ", ".join(f"{n} {kind}" for kind, n in found.items()),
        note=f"no {listed(missing)}" if missing else "",
    )


@rule("The last layer is dense with a softmax")
def softmax_output(evidence, model):
    """Judge the output layer."""
    layers = flat_layers(evidence.results(model)[0].architecture)
    if not layers:
        return no_network(evidence, model)
    last = layers[-1]
    activation = last["settings"].get("activation", "no activation")
    text = f"last layer {last['class']}, {activation}"
    return Finding(last["class"] == "Dense" and activation == "softmax", text, note=text)


@rule("The network is a Sequential around {name}")
def base_network(evidence, model, name):
    """Judge which network of ``keras.applications`` the model is built on."""
    architecture = evidence.results(model)[0].architecture
    if not architecture.get("layers"):
        return no_network(evidence, model)
    base = base_of(architecture)
    text = f"{architecture['class']} around {base['name'] if base else 'no base'}"
    return Finding(
        architecture["class"] == "Sequential" and bool(base) and plain(base["name"]) == plain(name),
        text,
        note=text,
    )


@rule("The training started from: {start}")
def weights_used(evidence, model, start):
    """Judge the initial weights; where ImageNet's were not to be had, the run cannot tell."""
    used = sorted({result.record["weights"]["used"] for result in evidence.results(model)})
    text = f"weights: {listed(used)}"
    if used == [start]:
        return Finding(True, text)
    if model in PRETRAINED:
        why = weights_reason(evidence.results(model)[0])
        return Finding(None, text, note=f"not trained from {start} weights ({why})")
    return Finding(False, text, note=text)


@rule("Training images are augmented; settings that must be above 0: {settings}")
def augmented_with(evidence, model, settings):
    """Judge the augmentation."""
    used = evidence.results(model)[0].record["augmentation"]
    on = [name for name, value in used.items() if value]
    missing = [name for name in settings if name not in on]
    return Finding(
        bool(on) and not missing,
        f"augmented: {', '.join(on) or 'no'}",
        note=f"without {listed(missing)}" if missing else "not augmented",
    )


@rule("The last convolution of the pretrained base is trained")
def top_unfrozen(evidence, model):
    """Judge whether the base's top layers are fine-tuned."""
    base = base_of(evidence.results(model)[0].architecture) if evidence.results(model)[0].architecture else None
    if base is None:
        return no_network(evidence, model)
    layers = [layer for layer in flat_layers(base) if layer["parameters"]]
    trained = [layer for layer in layers if layer["trainable_parameters"]]
    last = [layer for layer in layers if layer["class"] == "Conv2D"][-1]
    text = f"{len(trained)} of {len(layers)} base layers with weights are trained"
    return Finding(bool(last["trainable_parameters"]), text, note=f"the base's top is frozen: {text}")


@rule(
    "The learning rate never rises (ReduceLROnPlateau), and the epoch kept is the one with the best validation accuracy"
)
def callbacks(evidence, claim):
    """Judge learning rate and checkpoint by what they leave in the history."""
    off, texts = [], []
    for model in claim.models:
        for result in evidence.results(model):
            rates = result.history["learning_rate"].to_numpy(dtype=float)
            accuracy = result.history["val_accuracy"].to_numpy(dtype=float)
            if len(rates) < 2:
                return Finding(None, note=f"{result.label} has one epoch, which no schedule can change")
            kept = int(result.record["epochs"]["best"])
            reductions = int((np.diff(rates) < 0).sum())
            texts.append(f"{result.label}: epoch {kept} kept, {reductions} reductions")
            if (np.diff(rates) > 0).any():
                off.append(f"{result.label}: the learning rate rose")
            if not 1 <= kept <= len(accuracy) or accuracy[kept - 1] < np.nanmax(accuracy):
                off.append(f"{result.label}: epoch {kept} is not the one with the best validation accuracy")
    return Finding(not off, "; ".join(texts), note="; ".join(off))


@rule("{metrics} are recorded for training and validation each epoch")
def recorded_curves(evidence, claim, metrics):
    """Judge which curves a run can draw."""
    missing = [
        f"{result.label}: {prefix}{name}"
        for model in claim.models
        for result in evidence.results(model)
        for prefix in ("", "val_")
        for name in metrics
        if prefix + name not in result.history
    ]
    return Finding(not missing, note=f"no curve of {', '.join(missing)}")


@rule("In every epoch F1 is 2PR / (P + R) of that epoch's validation precision and recall")
def f1_from_precision_and_recall(evidence, claim):
    """Judge that F1 is counted from precision and recall."""
    off = []
    for model in claim.models:
        for result in evidence.results(model):
            p, r, f1 = (result.history[f"val_{name}"] for name in ("precision", "recall", "f1"))
            gap = (f1 - (2 * p * r / (p + r)).where(p + r > 0, 0.0)).abs().max()
            if not gap <= F1_ROUNDING:
                off.append(f"{result.label}: F1 is off by up to {gap:.3f}")
    return Finding(not off, note="; ".join(off))


@rule("The run's folder holds each model's files: {files}")
def saved_files(evidence, claim, files):
    """Judge which files of the trained networks are there."""
    folders = {m: result.folder for m in claim.models for result in evidence.results(m)[:1]}
    missing = {m: [name for name in files[m] if not (folder / name).exists()] for m, folder in folders.items()}
    wanted = sum(len(files[m]) for m in folders)
    there = wanted - sum(len(names) for names in missing.values())
    text = f"{there} of {wanted} files" if folders else ""
    gone = "; ".join(f"{evidence.label(m)}: no {listed(names)}" for m, names in missing.items() if names)
    if folders and not there:
        return Finding(None, text, note="no trained network lies in the run's folder: deleted, or not saved")
    return Finding(not gone, text, note=gone)


@rule(
    "With the thesis's protocol, the images validated on and those tested on are the same {share} of all, within "
    "{tolerance}; the sound protocol keeps them apart on purpose"
)
def validation_is_test(evidence, claim, share, tolerance):
    """Judge the use of the 20% as validation and test set."""
    results = [result for model in claim.models for result in evidence.results(model)]
    protocols = sorted({result.record["protocol"] for result in results})
    text = f"protocol: {listed(protocols)}" if protocols else ""
    if protocols != ["thesis"]:
        return Finding(None, text, note="needs the thesis's protocol: ./run_all.sh --set protocol=thesis")
    if not all(result.record["data"]["known"] for result in results):
        return Finding(None, text, note="the split is that of other data than the known FER2013")
    off = []
    for result in results:
        split = result.record["split"]
        if split["images_per_class"] or split["test_images_per_class"]:
            return Finding(None, text, note="only some images of each class were used")
        test = split["public"] + split["private"]
        part = test / (test + split["train"])
        if abs(part - share) > tolerance:
            off.append(f"{result.label}: {part:.1%} test images")
        if not result.history["val_accuracy"].equals(result.history["test_accuracy"].rename("val_accuracy")):
            off.append(f"{result.label}: validated on other images than tested on")
    return Finding(not off, text, note="; ".join(off))


def resnet_rows(architecture):
    """Convolutions on the main path of each stage of a ResNet, and the output layer.

    Parameters
    ----------
    architecture : dict
        ``architecture.json`` of a network around ``keras.applications.ResNet50``, or of that itself.

    Returns
    -------
    list of int
        Stages 1 to 5 by Keras's names (``conv2_block1_1_conv``; ``..._0_conv`` stands on a shortcut), then 1 for
        the softmax.
    """
    base = base_of(architecture) or architecture
    names = [layer["name"] for layer in flat_layers(base) if layer["class"] == "Conv2D"]
    stages = [re.match(r"conv(\d)_(?!.*_0_conv$)", name) for name in names]
    found = [int(match[1]) for match in stages if match]
    last = flat_layers(architecture)[-1]
    return [found.count(stage) for stage in range(1, 6)] + [int(last["settings"].get("activation") == "softmax")]


@rule(
    "In the built network the main path's convolutions, stage by stage, and the output layer are {rows}, {total} in all"
)
def resnet_layers(evidence, model, rows, total):
    """Judge the sum of ResNet-50's layers."""
    architecture = evidence.results(model)[0].architecture
    if not architecture.get("layers"):
        return no_network(evidence, model)
    found = resnet_rows(architecture)
    text = f"{' + '.join(map(str, found))} = {sum(found)}"
    return Finding(
        found == rows and sum(rows) == total,
        text,
        sum(found),
        difference=abs(sum(found) - total) / total,
        note=f"the built network has {text}",
    )


@rule("In the built network every block of rows {rows} has {count} convolutions of 3x3")
def resnet_block(evidence, model, rows, count):
    """Judge how many 3x3 convolutions a block of ResNet-50 has; a row's number is its stage's."""
    architecture = evidence.results(model)[0].architecture
    if not architecture.get("layers"):
        return no_network(evidence, model)
    blocks = {}
    for layer in flat_layers(base_of(architecture) or architecture):
        match = re.match(r"conv(\d)_block(\d+)_[1-9]_conv$", layer["name"])
        if match and int(match[1]) in rows:
            kernels = blocks.setdefault((int(match[1]), int(match[2])), [])
            kernels.append(layer["settings"].get("kernel_size"))
    threes = {sum(kernel == [3, 3] for kernel in kernels) for kernels in blocks.values()}
    # With that many 3x3 convolutions beside the 1x1 ones, the rows would hold more layers than they do.
    ones = {key: sum(kernel == [1, 1] for kernel in kernels) for key, kernels in blocks.items()}
    would = [sum(ones[key] + count for key in blocks if key[0] == row) for row in rows]
    text = f"{listed(sorted(threes))} 3x3 a block"
    return Finding(
        threes == {count},
        text,
        note=f"the built network has {text}; with {count} those rows would give {listed(would)} layers",
    )


@rule("The number of convolutions in the built network is one of {value}")
def convolution_count(evidence, model, value):
    """Judge the number of VGG-16's convolutions."""
    architecture = evidence.results(model)[0].architecture
    if not architecture.get("layers"):
        return no_network(evidence, model)
    kinds = [layer["class"] for layer in flat_layers(architecture)]
    counts = {"convolution": kinds.count("Conv2D"), "dense": kinds.count("Dense")}
    text = f"{counts['convolution']} convolutions, {counts['dense']} dense layers"
    return Finding(
        counts["convolution"] in value,
        text,
        counts["convolution"],
        difference=min(abs(counts["convolution"] - v) / v for v in value),
        note=f"the built network has {text}, {sum(counts.values())} layers with weights in all",
    )

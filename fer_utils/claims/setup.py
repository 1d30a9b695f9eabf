"""Claims about networks, training and evaluation (chapter 3.2.5, Table 5.1): what is followed, and what was built.

Judged by what the run recorded about each training, whatever its length and data.
"""

import re

import numpy as np

from fer_utils.claims.checks import check, fact, judges, unknown
from fer_utils.claims.evidence import Untestable
from fer_utils.findings.diagrams import flat_layers
from fer_utils.findings.results import command, read_object
from fer_utils.words import listed

#: How far a recorded F1 may be from that of its precision and recall: rounding of single precision.
F1_ROUNDING = 1e-3


class Network:
    """What a training built: its `layers`, those that the notebook added (`own`), and the nested `base`, or None."""

    def __init__(self, e, model):
        self.described = e.every(model)[0].architecture
        if not self.described.get("layers"):
            raise Untestable(f"{e.label(model)} left no architecture.json")
        self.layers = flat_layers(self.described)
        self.own = [layer for layer in self.described["layers"] if "layers" not in layer]
        nested = [layer for layer in self.described["layers"] if "layers" in layer]
        self.base = max(nested, key=lambda layer: layer["parameters"], default=None)

    def count(self, kind):
        """Layers of a Keras class."""
        return sum(layer["class"] == kind for layer in self.layers)

    def followed_by(self, at):
        """What comes after a layer with weights, up to the next one: ``["BatchNormalization", "relu"]``."""
        found = [setting(self.layers[at], "activation")]
        for layer in self.layers[at + 1 :]:
            if layer["class"] in ("Conv2D", "Dense"):
                break
            relu = layer["class"] == "ReLU" or setting(layer, "activation") == "relu"
            found.append("relu" if relu else layer["class"])
        return found


def setting(layer, name):
    """A setting of a layer, or None."""
    return layer.get("settings", {}).get(name)


def of_each(e, c, judge):
    """One check for each of the claim's models: `judge` takes the model's trainings."""
    return [check(lambda m: judge(e.every(m)))(model) for model in c.models]


def plain(value):
    """Names without case and underscores: ``CategoricalCrossentropy`` is ``categorical_crossentropy``."""
    return value.lower().replace("_", "") if isinstance(value, str) else value


@judges("S01")
def table_5_1(e, c):
    """Every training's recorded hyperparameters are Table 5.1's, and its metrics are recorded each epoch."""

    def judge(results):
        off, shorter = [], []
        for result in results:
            used = result.record["parameters"]
            other = [f"{n} {used.get(n)}" for n, value in c.parameters.items() if plain(used.get(n)) != plain(value)]
            other += [f"no {name}" for name in c.metrics if name not in result.history]
            fewer = "shortened" in result.reasons and other == [f"epochs {used.get('epochs')}"]
            (shorter if fewer else off).extend(f"{result.label} (seed {result.seed}): {text}" for text in other)
        if off or not shorter:
            return fact(not off, "; ".join(off) or "as stated")
        return unknown("a shortened run sets its own number of epochs", "; ".join(shorter))

    return of_each(e, c, judge)


@judges("S02")
def layers_of_cnn(e, c):
    """A Sequential: each Conv2D with ReLU, then batch normalisation; pooling, Flatten, hidden Dense layers, softmax."""
    network = Network(e, "traditional_cnn")
    at = [i for i, layer in enumerate(network.layers) if layer["class"] == "Conv2D"]
    after = [network.followed_by(i) for i in at]
    good = sum("relu" in names and "BatchNormalization" in names[:3] for names in after)
    last, hidden = network.layers[-1], network.count("Dense") - 1
    return [
        fact(0 < len(at) == good, f"{good} of {len(at)} convolutions with ReLU and batch normalisation"),
        fact(network.described["class"] == "Sequential", network.described["class"]),
        has_layers(network, c.layers),
        fact(hidden > 1, f"hidden dense layers: {hidden}", wrong=f"{hidden} hidden dense layer, the text has several"),
        fact((last["class"], setting(last, "activation")) == ("Dense", "softmax"), f"last layer {last['class']}"),
    ]


def has_layers(network, wanted):
    """The notebook's own layers hold each of these classes."""
    names = [layer["class"] for layer in network.own]
    missing = [name for name in wanted if name not in names]
    return fact(not missing, ", ".join(f"{names.count(n)} {n}" for n in wanted), wrong=f"no {listed(missing)}")


def starts_from(e, model, start):
    """The training started from these weights; where ImageNet's were unavailable, the run cannot tell."""
    weights = e.every(model)[0].record["weights"]
    if weights["used"] != start and weights["requested"] == start:
        why = (weights.get("reason") or "no reason recorded").partition(" (")[0]
        return unknown(f"{e.label(model)} asked for {start} weights and did not get them ({why})")
    return fact(weights["used"] == start, f"weights: {weights['used']}")


@judges("S03", "S04", "S05")
def network_as_described(e, c):
    """Initial weights, base, further layers and augmentation are as described; of MobileNet-V3 the top is trained."""
    (model,) = c.models
    on = e.every(model)[0].augmentation
    missing = [name for name in c.augmentation if name not in on]
    wrong = f"without {listed(missing)}" if missing else ""
    parts = [starts_from(e, model, c.start)]
    parts.append(fact(bool(on) and not missing, f"augmented: {', '.join(on) or 'no'}", wrong=wrong))
    try:
        network = Network(e, model)
    except Untestable as error:
        return [*parts, unknown(error.reason)]
    if "layers" in c.stated:
        parts.append(has_layers(network, c.layers))
    if "base" in c.stated:
        name, kind = network.base["name"] if network.base else "no base", network.described["class"]
        parts.append(fact(kind == "Sequential" and plain(name) == plain(c.base), f"{kind} around {name}"))
    if c.id == "S05" and network.base:
        layers = [layer for layer in flat_layers(network.base) if layer["parameters"]]
        trained = sum(bool(layer["trainable_parameters"]) for layer in layers)
        last = [layer for layer in layers if layer["class"] == "Conv2D"][-1]
        text = f"{trained} of {len(layers)} base layers with weights are trained"
        parts.append(fact(last["trainable_parameters"] > 0, text))
    return parts


@judges("S06")
def callbacks_and_curves(e, c):
    """The learning rate never rises, the best epoch is kept, five curves are recorded, and F1 is 2PR / (P + R)."""
    return [part for judge in (schedule, recorded, f1_of_p_and_r) for part in of_each(e, c, judge)]


def schedule(results):
    """ReduceLROnPlateau and ModelCheckpoint, by what they leave in the history."""
    off, texts = [], []
    for result in results:
        rates, accuracy = (result.history[name].to_numpy(dtype=float) for name in ("learning_rate", "val_accuracy"))
        if len(rates) < 2:
            return unknown(f"{result.label} has one epoch, which no schedule can change")
        kept = int(result.record["epochs"]["best"])
        texts.append(f"{result.label}: epoch {kept} kept, {(np.diff(rates) < 0).sum()} reductions")
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
        table = result.history.reindex(columns=["val_precision", "val_recall", "val_f1"]).astype(float)
        p, r, f1 = table.to_numpy().T
        gap = np.abs(f1 - np.divide(2 * p * r, p + r, out=np.zeros_like(p), where=p + r > 0)).max()
        off += [f"{result.label}: F1 is off by up to {gap:.3f}"] if gap > F1_ROUNDING else []
    return fact(not off, wrong="; ".join(off))


@judges("S07")
def saved_files(e, c):
    """Each model's folder holds the network and the weights in the stated forms (.keras for the traditional CNN)."""

    def judge(results):
        label, left = results[0].label, results[0].networks
        wanted = c.files[next(model for model in c.models if results[0].model.startswith(model))]
        missing = [name for name in wanted if name not in left]
        if missing == wanted:
            return unknown(f"no trained network of {label} lies in the run's folder: deleted, or not saved")
        return fact(not missing, f"{label}: {len(wanted) - len(missing)} files", wrong=f"{label}: no {listed(missing)}")

    return of_each(e, c, judge)


@judges("S10")
def validated_on_the_test_set(e, c):
    """Under the thesis's protocol, the images validated on are those tested on, and a fifth of all."""
    found = [result for result in e.run.models if result.record["protocol"] == "thesis"]
    if not found:
        needs = command(e.run, ["resnet50_thesis_protocol"], profile="paper")
        return unknown(f"needs the thesis's protocol: {needs}", "protocol: sound")
    parts = []
    for result in found:
        split, same = result.record["split"], (result.history["val_accuracy"] == result.history["test_accuracy"]).all()
        wrong = f"{result.label}: validated on other images than tested on"
        parts.append(fact(same, f"{result.label}: validated on the test images", wrong=wrong))
        if split["images_per_class"] or split["test_images_per_class"]:
            parts.append(unknown("only some images of each class were used"))
            continue
        share = (split["public"] + split["private"]) / (split["public"] + split["private"] + split["train"])
        parts.append(fact(abs(share - c.share) <= c.within["share"], f"{share:.1%} of the images are test images"))
    return parts


@judges("S14")
def tuned_on_which_images(e, c):
    """None: the thesis does not report its experiments, so nothing can be repeated; here each value is Table 5.1's."""
    return unknown("the thesis does not say what was tried, nor on which images; here nothing was searched for")


# ---- the built networks


@judges("S11")
def layers_of_resnet(e, c):
    """Stage by stage, the main path's convolutions of the built ResNet-50, and the softmax, are as stated.

    Keras names them ``conv2_block1_1_conv``; ``..._0_conv`` is on a shortcut. Each block has one of 3x3, as the
    text says of every row.
    """
    network = Network(e, "resnet50")
    blocks = {}
    for layer in flat_layers(network.base or network.described):
        match = re.match(r"conv(\d)_(block\d+)?", layer["name"])
        if match and layer["class"] == "Conv2D" and not layer["name"].endswith("_0_conv"):
            blocks.setdefault((int(match[1]), match[2]), []).append(setting(layer, "kernel_size"))
    rows = [sum(len(kernels) for (stage, _), kernels in blocks.items() if stage == number) for number in range(1, 6)]
    rows.append(int(setting(network.layers[-1], "activation") == "softmax"))
    threes = {kernels.count([3, 3]) for (stage, _), kernels in blocks.items() if stage > 1}
    text = f"{' + '.join(map(str, rows))} = {sum(rows)}, {' or '.join(map(str, sorted(threes)))} 3x3 in each block"
    return fact(rows == c.rows and threes == {1}, text, f"the built network has {text}")


@judges("S12")
def convolutions_of_vgg(e, c):
    """The built VGG-16 has 16 or 19 convolutions."""
    network = Network(e, "vgg16")
    found, dense = network.count("Conv2D"), network.count("Dense")
    text = f"{found} convolutions and {dense} dense layers, {found + dense} layers with weights"
    return fact(found in c.convolutions, text, difference=min(abs(found - n) / n for n in c.convolutions))


@judges("S18")
def mobilenet_is_smaller(e, c):
    """The built MobileNet-V3 has fewer parameters than each of the other three networks."""

    @check
    def smaller_than(other):
        ours, theirs = (Network(e, model).described["parameters"]["total"] for model in ("mobilenet_v3", other))
        return fact(ours < theirs, f"MobileNet-V3 {ours:,} parameters, {e.label(other)} {theirs:,}")

    return [smaller_than(other) for other in c.models[1:]]


@judges("S19")
def hard_swish_is_faster(e, c):
    """As timed by ``benchmarks/activations.py``, hard swish takes less time than ReLU on the same feature map."""
    timed, _ = read_object(e.run.folder / "benchmarks" / "activations.json")
    if not timed:
        holds = "hard swish is x * ReLU6(x + 3) / 6, so it holds a ReLU and three operations more"
        return unknown(f"not timed here; {holds}; needs python -m benchmarks.activations RUNFOLDER")
    swish, relu = timed["hard_swish"], timed["relu"]
    text = f"hard swish {1e6 * swish:.0f} µs, ReLU {1e6 * relu:.0f} µs on {timed['device']}"
    return fact(swish < relu, text, difference=abs(swish - relu) / relu)


@judges("S20")
def layers_of_vgg(e, c):
    """The built VGG-16 has five max poolings, two dense layers of 4096 units and ReLU in every hidden layer.

    The last layer's 1000 units are ImageNet's classes; here it has one for each expression.
    """
    network = Network(e, "vgg16")
    units = [setting(layer, "units") for layer in network.layers if layer["class"] == "Dense"]
    hidden = [i for i, layer in enumerate(network.layers) if layer["class"] in ("Conv2D", "Dense")][:-1]
    relus = sum("relu" in network.followed_by(i) for i in hidden)
    poolings, dense = network.count("MaxPooling2D"), "-".join(map(str, units))
    text = f"{poolings} poolings, dense {dense}, ReLU in {relus} of {len(hidden)} hidden layers"
    return fact((poolings, units[:-1], relus) == (c.poolings, c.dense, len(hidden)), text)

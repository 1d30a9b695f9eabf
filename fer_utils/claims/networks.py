"""Claims that the built networks can answer, whatever they were trained on (chapter 3.2.5)."""

import re

from fer_utils.claims.checks import check, fact, judges, unknown
from fer_utils.claims.evidence import Untestable
from fer_utils.findings.diagrams import flat_layers
from fer_utils.findings.results import read_object


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

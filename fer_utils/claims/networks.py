"""Claims that the built networks can answer, whatever they were trained on (chapter 3.2.5)."""

import re

from fer_utils.claims.checks import check, fact, judges, unknown
from fer_utils.claims.evidence import Untestable
from fer_utils.findings.results import read_object
from fer_utils.words import listed


def flat_layers(architecture):
    """All layers of ``architecture.json`` in order, those of nested networks in their place."""
    layers = []
    for layer in architecture.get("layers", []):
        layers += flat_layers(layer) if "layers" in layer else [layer]
    return layers


def own_layers(architecture):
    """Layers that the notebook added, without those of a nested base."""
    return [layer for layer in architecture.get("layers", []) if "layers" not in layer]


def base_of(architecture):
    """The largest nested network, or None."""
    nested = [layer for layer in architecture.get("layers", []) if "layers" in layer]
    return max(nested, key=lambda layer: layer["parameters"], default=None)


def network(e, model):
    """``architecture.json`` of a model's training."""
    architecture = e.built(model).architecture
    if not architecture.get("layers"):
        raise Untestable(f"{e.label(model)} left no architecture.json")
    return architecture


def classes_of(layers):
    """Names of the layers' classes."""
    return [layer["class"] for layer in layers]


def setting(layer, name):
    """A setting of a layer, or None."""
    return layer.get("settings", {}).get(name)


@judges("S11")
def layers_of_resnet(e, claim):
    """Stage by stage, the main path's convolutions of the built ResNet-50, and the output layer, are as stated.

    Keras names them ``conv2_block1_1_conv``; ``..._0_conv`` stands on a shortcut. In every block one convolution is
    3x3, as the text says of two rows.
    """
    return [resnet_rows(e, claim.stated["rows"])]


@check
def resnet_rows(e, rows):
    """See `layers_of_resnet`."""
    architecture = network(e, "resnet50")
    base = base_of(architecture) or architecture
    found = {}
    for layer in flat_layers(base):
        match = re.match(r"conv(\d)_(block\d+)?(?!_0)", layer["name"])
        if match and layer["class"] == "Conv2D" and not layer["name"].endswith("_0_conv"):
            found.setdefault(int(match[1]), {}).setdefault(match[2], []).append(setting(layer, "kernel_size"))
    counts = [sum(len(kernels) for kernels in found.get(stage, {}).values()) for stage in range(1, 6)]
    counts.append(int(setting(flat_layers(architecture)[-1], "activation") == "softmax"))
    threes = {sum(k == [3, 3] for k in kernels) for stage in range(2, 6) for kernels in found.get(stage, {}).values()}
    text = f"{' + '.join(map(str, counts))} = {sum(counts)}, {listed(sorted(threes))} 3x3 in each block"
    return fact(counts == rows and threes == {1}, text, f"the built network has {text}")


@judges("S12")
def convolutions_of_vgg(e, claim):
    """The built VGG-16 has 16 or 19 convolutions."""
    return [vgg_convolutions(e, claim.stated["convolutions"])]


@check
def vgg_convolutions(e, stated):
    """See `convolutions_of_vgg`."""
    names = classes_of(flat_layers(network(e, "vgg16")))
    found, dense = names.count("Conv2D"), names.count("Dense")
    text = f"{found} convolutions and {dense} dense layers, {found + dense} layers with weights"
    return fact(found in stated, text, text, difference=min(abs(found - n) / n for n in stated))


@judges("S18")
def mobilenet_is_smaller(e, claim):
    """The built MobileNet-V3 has fewer parameters than each of the other three networks."""
    return [fewer_parameters(e, other) for other in claim.models[1:]]


@check
def fewer_parameters(e, other):
    """See `mobilenet_is_smaller`."""
    ours, theirs = (network(e, model)["parameters"]["total"] for model in ("mobilenet_v3", other))
    return fact(ours < theirs, f"MobileNet-V3 {ours:,}, {e.label(other)} {theirs:,} parameters")


@judges("S19")
def hard_swish_is_faster(e, claim):
    """As timed by ``benchmarks/activations.py``, hard swish takes less time than ReLU on the same feature map."""
    measured, _ = read_object(e.run.folder / "benchmarks" / "activations.json")
    if not measured:
        return [
            unknown(
                "not timed here; hard swish is x * ReLU6(x + 3) / 6, so it holds a ReLU and three operations more; needs "
                f"python -m benchmarks.activations {e.run.folder.name}"
            )
        ]
    swish, relu = measured["hard_swish"], measured["relu"]
    text = f"hard swish {1e6 * swish:.0f} µs, ReLU {1e6 * relu:.0f} µs on {measured['device']}"
    return [fact(swish < relu, text, difference=abs(swish - relu) / relu)]


@judges("S20")
def layers_of_vgg(e, claim):
    """The built VGG-16 has five max poolings, two dense layers of 4096 units and ReLU in every hidden layer.

    The last layer's 1000 units are ImageNet's classes; here it has one for each expression.
    """
    return [vgg_layers(e, claim.stated)]


@check
def vgg_layers(e, stated):
    """See `layers_of_vgg`."""
    layers = flat_layers(network(e, "vgg16"))
    units = [setting(layer, "units") for layer in layers if layer["class"] == "Dense"]
    weighted = [i for i, layer in enumerate(layers) if layer["class"] in ("Conv2D", "Dense")][:-1]
    plain = [i for i in weighted if not has_relu(layers[i : i + 3])]
    poolings = classes_of(layers).count("MaxPooling2D")
    text = f"{poolings} poolings, dense {'-'.join(map(str, units))}, ReLU in {len(weighted) - len(plain)} of "
    text += f"{len(weighted)} hidden layers"
    return fact(poolings == stated["poolings"] and units[:-1] == stated["dense"] and not plain, text)


def has_relu(layers):
    """Whether a layer, or an activation in the two after it and before the next weights, applies ReLU."""
    if setting(layers[0], "activation") == "relu":
        return True
    for layer in layers[1:]:
        if layer["class"] in ("Conv2D", "Dense"):
            return False
        if layer["class"] == "ReLU" or setting(layer, "activation") == "relu":
            return True
    return False

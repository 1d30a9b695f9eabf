"""The four networks in PyTorch, to be timed against ours; an optional dependency (``requirements-benchmark.txt``).

A process of its own that knows nothing of TensorFlow: the two in one process end in a segmentation fault.
"""

import json
import sys
import time
from pathlib import Path

import torch
import torchvision
from torch import nn

from benchmarks.compare import fastest
from fer_utils.files import read_json


def traditional_cnn(names):
    """Return notebook 02's network."""
    layers, channels = [], 1
    for filters in (32, 64, 128, 256):
        for _ in range(2):
            layers += [nn.Conv2d(channels, filters, 3, padding="same"), nn.ReLU(), nn.BatchNorm2d(filters)]
            channels = filters
        layers += [nn.MaxPool2d(2), nn.Dropout(names["dropout"])]
    head = [nn.Flatten(), nn.Linear(256 * 9, 256), nn.ReLU(), nn.BatchNorm1d(256), nn.Dropout(2 * names["dropout"])]
    return nn.Sequential(*layers, *head, nn.Linear(256, 7))


def vgg16(names):
    """Return notebook 04's network."""
    normal = names["batch_normalization"]

    def hidden(layer, norm, size):
        return [layer, *([norm(size)] if normal else []), nn.ReLU()]

    layers, channels = [], 1
    for filters, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            convolution = nn.Conv2d(channels, filters, 3, padding="same", bias=not normal)
            layers += hidden(convolution, nn.BatchNorm2d, filters)
            channels = filters
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    for size in (512, 4096):
        layers += hidden(nn.Linear(size, 4096, bias=not normal), nn.BatchNorm1d, 4096) + [nn.Dropout(names["dropout"])]
    return nn.Sequential(*layers, nn.Linear(4096, 7))


class ThreeChannels(nn.Module):
    """Grey to three equal channels."""

    def forward(self, images):
        """Repeat the channel."""
        return images.expand(-1, 3, -1, -1)


def resnet50(names):
    """Return notebook 03's network; as in Keras, the first convolution of a stage takes the stride."""
    base = torchvision.models.resnet50(weights=None)
    for stage in (base.layer2, base.layer3, base.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    head = [nn.Conv2d(2048, 256, 3, padding="same"), nn.ReLU(), nn.BatchNorm2d(256), nn.MaxPool2d(2), nn.Flatten()]
    head += [nn.Linear(256, 256), nn.ReLU(), nn.BatchNorm1d(256), nn.Dropout(names["dropout"]), nn.Linear(256, 7)]
    return nn.Sequential(ThreeChannels(), *list(base.children())[:-2], *head)


def mobilenet_v3(names):
    """Return notebook 05's network."""
    if names["version"] != "v3":
        raise SystemExit(f"there is no MobileNet {names['version']} for PyTorch here")
    base = torchvision.models.mobilenet_v3_small(weights=None).features
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(576, 128), nn.ReLU(), nn.Dropout(names["dropout"])]
    return nn.Sequential(ThreeChannels(), base, *head, nn.Linear(128, 7))


#: The networks by the number of the notebook.
NETWORKS = {"02": traditional_cnn, "03": resnet50, "04": vgg16, "05": mobilenet_v3}


class Trainer:
    """A network, an optimizer and one batch, in float32 or under bfloat16 autocast, eager or compiled."""

    def __init__(self, network, batch_size, bfloat16, compiled):
        network = network.to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.Adam(network.parameters(), lr=0.001, foreach=True)
        self.network = torch.compile(network) if compiled else network
        self.bfloat16 = bfloat16
        self.images = torch.rand(batch_size, 1, 48, 48).to(memory_format=torch.channels_last)
        self.labels = torch.randint(0, 7, (batch_size,))

    def train(self, steps):
        """Train for some batches; return the seconds."""
        started = time.monotonic()
        right = torch.zeros((), dtype=torch.long)
        for _ in range(steps):
            self.optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
                logits = self.network(self.images)
            loss = nn.functional.cross_entropy(logits.float(), self.labels)
            loss.backward()
            self.optimizer.step()
            right += (logits.argmax(1) == self.labels).sum()
        return time.monotonic() - started


def main():
    """Be a PyTorch side; it is asked and answers as `benchmarks.sides` does, and says whether it took bfloat16."""
    options = json.loads(sys.argv[1])
    out, sys.stdout = sys.stdout, sys.stderr
    record = read_json(Path(options["folder"]) / "run.json")
    network, batch_size = NETWORKS[record["notebook"][:2]], record["parameters"]["batch_size"]
    compiled = options["side"] == "pytorch_compiled"
    torch.manual_seed(0)
    choices = (False, True) if options["bfloat16"] is None else (options["bfloat16"],)
    best = fastest([Trainer(network(record["parameters"]), batch_size, choice, compiled) for choice in choices])
    note = f"PyTorch {torch.__version__}, {'bfloat16' if best.bfloat16 else 'float32'}"
    print(json.dumps({"note": note, "bfloat16": best.bfloat16}), file=out, flush=True)
    for _ in sys.stdin:
        print(json.dumps({"seconds": best.train(options["steps"])}), file=out, flush=True)


if __name__ == "__main__":
    main()

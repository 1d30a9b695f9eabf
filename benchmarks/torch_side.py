"""The four networks in PyTorch, to be timed against ours; an optional dependency (``requirements-benchmark.txt``).

A process of its own that knows nothing of TensorFlow: the two in one process end in a segmentation fault.
"""

import json
import sys
import time

from benchmarks.compare import fastest
from fer_utils.batch.config import notebook_parameters, read_config

try:
    import torch
    import torchvision
    from torch import nn
except ImportError as error:
    raise SystemExit(f"{error}; to compare with PyTorch: pip install -r requirements-benchmark.txt") from None

BATCH = 64


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
    layers, channels = [], 1
    for filters, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            layers += [nn.Conv2d(channels, filters, 3, padding="same", bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
            channels = filters
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    for size in (512, 4096):
        dense = [nn.Linear(size, 4096, bias=False), nn.BatchNorm1d(4096), nn.ReLU()]
        layers += [*dense, nn.Dropout(names["dropout"])]
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
    base = torchvision.models.mobilenet_v3_small(weights=None).features
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(576, 128), nn.ReLU(), nn.Dropout(names["dropout"])]
    return nn.Sequential(ThreeChannels(), base, *head, nn.Linear(128, 7))


NETWORKS = {"traditional_cnn": traditional_cnn, "resnet50": resnet50, "vgg16": vgg16, "mobilenet_v3": mobilenet_v3}


class Trainer:
    """A network, an optimizer and one batch.

    Parameters
    ----------
    network : nn.Module
    bfloat16 : bool
        Whether to compute with bfloat16 where PyTorch's autocast does.
    """

    def __init__(self, network, bfloat16):
        self.network = network.to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.Adam(network.parameters(), lr=0.001, foreach=True)
        self.bfloat16 = bfloat16
        self.images = torch.rand(BATCH, 1, 48, 48).to(memory_format=torch.channels_last)
        self.labels = torch.randint(0, 7, (BATCH,))

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
    """Be the PyTorch side; what it is asked and answers is as in `benchmarks.sides`, and ``bfloat16``."""
    options = json.loads(sys.argv[1])
    entry = read_config()["models"][options["model"]]
    names = notebook_parameters(entry["notebook"]) | (entry.get("parameters") or {})
    torch.manual_seed(0)
    # Once it is known which is faster, the later pairs of processes need not ask again.
    choices = (False, True) if options.get("bfloat16") is None else (options["bfloat16"],)
    best = fastest([Trainer(NETWORKS[options["model"]](names), bfloat16) for bfloat16 in choices])
    steps = options["steps"]
    note = f"PyTorch {torch.__version__} in {'bfloat16' if best.bfloat16 else 'float32'}"
    ready = {"steps": steps, "images": steps * BATCH, "note": note, "bfloat16": best.bfloat16}
    print(json.dumps(ready), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"seconds": best.train(steps)}), flush=True)


if __name__ == "__main__":
    main()

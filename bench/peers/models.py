"""The networks of nn/models in PyTorch, under the same parameter names."""
import torch
from torch import nn
from torch.nn import functional as F


class Mlp(nn.Module):
    """inputs -> width -> f, logits (f, -f)."""

    def __init__(self, inputs=100, width=1000):
        super().__init__()
        self.fc1 = nn.Linear(inputs, width)
        self.fc2 = nn.Linear(width, 1)

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, inputs, width, stride, expansion, option_a):
        super().__init__()
        outputs = width * expansion
        if expansion == 1:
            self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        else:
            self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(outputs)
        self.bn1 = nn.BatchNorm2d(width)
        self.bn2 = nn.BatchNorm2d(width)
        self.bottleneck = expansion > 1
        self.reshapes = stride != 1 or inputs != outputs
        self.pad = (outputs - inputs) // 2 if option_a else None
        if self.reshapes and not option_a:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def shortcut(self, x):
        if not self.reshapes:
            return x
        if self.pad is None:
            return self.downsample(x)
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.bottleneck:
            y = self.bn3(self.conv3(F.relu(y, inplace=True)))
        y += self.shortcut(x)  # in place, as torchvision: y is a fresh result
        return F.relu(y, inplace=True)


class ResNet(nn.Module):
    def __init__(self, blocks, widths, stem, expansion=1, option_a=False, head="fc", classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        inputs = stem
        self.stages = len(blocks)
        for i, (count, width) in enumerate(zip(blocks, widths)):
            layers = []
            for k in range(count):
                layers.append(Block(inputs, width, 2 if i > 0 and k == 0 else 1, expansion, option_a))
                inputs = width * expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*layers))
        self.head = head
        setattr(self, head, nn.Linear(inputs, classes))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return getattr(self, self.head)(x.mean((2, 3)))


def make(name):
    """By the names of nn/models/registry.h."""
    if name == "resnet18_cifar":
        return ResNet([2, 2, 2, 2], [64, 128, 256, 512], 64)
    if name == "resnet152_cifar":
        return ResNet([3, 8, 36, 3], [64, 128, 256, 512], 64, expansion=4)
    n = (int(name[len("resnet"):]) - 2) // 6  # resnet8 .. resnet110
    return ResNet([n] * 3, [16, 32, 64], 16, option_a=True, head="linear")


def like(tensors, prefix):
    """The network that exported tensors under this prefix belong to: sizes follow from shapes."""
    shapes = {name[len(prefix):]: tuple(t.shape) for name, t in tensors.items() if name.startswith(prefix)}
    if "fc1.weight" in shapes:
        return Mlp(shapes["fc1.weight"][1], shapes["fc1.weight"][0])
    stages = [i for i in range(1, 9) if f"layer{i}.0.conv1.weight" in shapes]
    blocks = [len({name.split(".")[1] for name in shapes if name.startswith(f"layer{i}.")}) for i in stages]
    widths = [shapes[f"layer{i}.0.conv1.weight"][0] for i in stages]
    bottleneck = "layer1.0.conv3.weight" in shapes
    option_a = not any(".downsample." in name for name in shapes)
    head = "linear" if "linear.weight" in shapes else "fc"
    return ResNet(
        blocks, widths, shapes["conv1.weight"][0], 4 if bottleneck else 1, option_a, head, shapes[f"{head}.weight"][0])


def load(tensors, prefix="model."):
    """The network with the exported weights; every name must be there."""
    model = like(tensors, prefix)
    state = {name[len(prefix):]: t for name, t in tensors.items() if name.startswith(prefix)}
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise RuntimeError(f"weights do not fit: missing {missing}, unexpected {unexpected}")
    return model


def fold_batch_norms(model):
    """For inference: every batch norm goes into the convolution before it."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for module in model.modules():
        for i in "123":
            conv, bn = getattr(module, f"conv{i}", None), getattr(module, f"bn{i}", None)
            if isinstance(bn, nn.BatchNorm2d):
                setattr(module, f"conv{i}", fuse_conv_bn_eval(conv, bn))
                setattr(module, f"bn{i}", nn.Identity())
        if isinstance(getattr(module, "downsample", None), nn.Sequential):
            module.downsample = fuse_conv_bn_eval(*module.downsample)
    return model

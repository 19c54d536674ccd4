"""Modules as one writes them for torch.  Nothing in them is meant for Ridgeline."""

import torch
from torch import nn


class Residual(nn.Module):
    """Fully connected blocks, each of which adds to what it is given."""

    def __init__(self, num_features, num_outputs, width, blocks):
        super().__init__()
        self.enter = nn.Linear(num_features, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(width, width),
            )
            for _ in range(blocks)
        )
        self.leave = nn.Linear(width, num_outputs)

    def forward(self, x):
        x = self.enter(x)
        for block in self.blocks:
            x = x + block(x)
        return self.leave(torch.relu(x))


class SmallCnn(nn.Module):
    """Two convolutions with batch norm, then a linear layer."""

    def __init__(self, shape, num_outputs, channels):
        super().__init__()
        num_channels, height, width = shape
        self.layers = nn.Sequential(
            nn.Conv2d(num_channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(2 * channels * (height // 4) * (width // 4), num_outputs),
        )

    def forward(self, x):
        return self.layers(x)

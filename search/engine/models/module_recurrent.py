"""An LSTM as plain operations.

torch's own is a call of oneDNN on a CPU in float32.  That has no batching rule, and its workspace
has no size while a graph is traced: a graph of it fails when it is run.

# B rows of a batch, T steps, D inputs, H units, P outputs: units, or projections of them
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

Drop = Callable[[Tensor, float], Tensor]
"""Dropout of a tensor whose first dimension is the rows, by a probability."""


def lstm(
    drop: Drop,
    input: Tensor,
    hx: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `torch.lstm`: outputs, and the last outputs and cells of each layer and direction.

    The formulas are those of `torch.nn.LSTM`; projections are of Sak et al., "Long short-term
    memory based recurrent neural network architectures" (2014).
    """
    flow_BTD = input if batch_first else input.transpose(0, 1)
    starts, cells = hx
    num_directions = 2 if bidirectional else 1
    has_projections = starts.shape[2] != cells.shape[2]
    num_weights = 2 + 2 * has_biases + has_projections
    last_outputs: list[Tensor] = []
    last_cells: list[Tensor] = []
    for layer in range(num_layers):
        flows: list[Tensor] = []
        for direction in range(num_directions):
            i = layer * num_directions + direction
            weights = params[i * num_weights : (i + 1) * num_weights]
            steps = flow_BTD.flip(1) if direction else flow_BTD
            outputs, cell_BH = _direction(steps, starts[i], cells[i], weights, has_biases)
            last_outputs.append(outputs[-1])
            last_cells.append(cell_BH)
            flows.append(torch.stack(outputs[::-1] if direction else outputs, dim=1))
        flow_BTD = torch.cat(flows, dim=2) if bidirectional else flows[0]
        if train and dropout > 0 and layer < num_layers - 1:
            flow_BTD = drop(flow_BTD, dropout)
    flow = flow_BTD if batch_first else flow_BTD.transpose(0, 1)
    return flow, torch.stack(last_outputs), torch.stack(last_cells)


def _direction(
    x_BTD: Tensor, output_BP: Tensor, cell_BH: Tensor, weights: Sequence[Tensor], has_biases: bool
) -> tuple[list[Tensor], Tensor]:
    """The outputs of each step, and the last cell."""
    of_input, of_output, *rest = weights
    bias = rest[0] + rest[1] if has_biases else None
    projection = rest[-1] if len(rest) % 2 else None
    inputs = functional.linear(x_BTD, of_input, bias)
    outputs = []
    for input_B4H in inputs.unbind(1):
        gates_B4H = input_B4H + functional.linear(output_BP, of_output)
        into, forget, new, out = gates_B4H.chunk(4, dim=1)
        cell_BH = forget.sigmoid() * cell_BH + into.sigmoid() * new.tanh()
        output_BP = out.sigmoid() * cell_BH.tanh()
        if projection is not None:
            output_BP = functional.linear(output_BP, projection)
        outputs.append(output_BP)
    return outputs, cell_BH

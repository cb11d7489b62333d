r"""A layer of attention that is trained to follow pointers, iterated: groves of trees, and the network.

A *grove* is a forest of several random recursive trees whose nodes are numbered anew, so that neither the number of a node nor the
place of the only root gives a root away. Which root stands above a node can be told by following its pointers, and takes as many
steps as the node is deep.

The network is one fixed-point layer (`lab.models.mixers.fixed_point`, values frozen, no damping): every node begins with its own
address and that of its parent, $u_0 = x$, and $u_{k+1} = x + \mathrm{attention}(u_k)$ with one head. What it answers after L
steps is a linear map of $u_L$. All L steps share the weights, so that L may be larger after training than in it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lab.contracts import generator
from lab.domains.attention.pointer_forests import Forests, forest
from lab.errors import LabError
from lab.models.mixers.fixed_point import FixedPointAttention
from lab.streams import RandomStream


@generator(nodes=6, roots=2)
def groves(
    stream: RandomStream, batch: int, *, nodes: int, roots: int, deepest: int | None = None, draws: int = 1
) -> Forests:
    """Random groves: nodes 1 to r are roots, each further node hangs below one before it, and all are numbered anew.

    Args:
        draws: the node it hangs below is the latest of so many draws among those before it; more draws make deeper trees.
        deepest: a node that would be deeper hangs below the root of its tree instead; None lets all be.

    Raises:
        LabError: no root, fewer nodes than roots, a depth or a number of draws below 1.
    """
    if draws < 1:
        raise LabError(f"draws = {draws} of a parent must be at least 1; please raise it.")
    if not 1 <= roots <= nodes:
        raise LabError(f"roots = {roots} of a grove must be at least 1 and at most nodes = {nodes}; please change one.")
    if deepest is not None and deepest < 1:
        raise LabError(f"deepest = {deepest} of a grove must be at least 1; please raise it.")
    drawn = stream.rng().random((batch, draws + 1, nodes))
    parents = (drawn[:, 1:].max(1) * np.maximum(np.arange(nodes), 1)).astype(np.int64)
    parents[:, :roots] = np.arange(roots)
    pointers = torch.from_numpy(parents)
    if deepest is not None:
        grown = forest(pointers)
        pointers = torch.where(grown.depth > deepest, grown.targets, pointers)
    return renumbered(pointers, torch.from_numpy(drawn[:, 0].argsort(1)))


@generator(nodes=6)
def chains(stream: RandomStream, batch: int, *, nodes: int) -> Forests:
    """Two roots, and all other nodes in one chain below one of them, numbered anew; the deepest has the depth nodes - 2.

    Raises:
        LabError: fewer than 3 nodes.
    """
    if nodes < 3:
        raise LabError(f"nodes = {nodes} of a chain beside a root must be at least 3; please raise it.")
    parents = torch.cat((torch.tensor([0, 1]), torch.arange(1, nodes - 1))).expand(batch, -1)
    return renumbered(parents, torch.from_numpy(stream.rng().random((batch, nodes)).argsort(1)))


def renumbered(parents: Int[Tensor, "batch token"], names: Int[Tensor, "batch token"]) -> Forests:
    """The same forests with node i called ``names[i]``."""
    return forest(torch.empty_like(names).scatter_(1, names, names.gather(1, parents)))


class LoopedChaser(nn.Module):
    """See the module; ensembles of E models with a leading model axis.

    The initial weights of model e are normal with the variance 1 / rows and come from ``RandomStream(seeds[e], ("weights", name))``.

    Args:
        seeds: one a model.
        nodes: n; a node's state has 3 n numbers, of which the last n are free at the beginning.

    Raises:
        LabError: no seeds or no nodes.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    read_out: Tensor

    def __init__(self, seeds: Sequence[int], *, nodes: int) -> None:
        super().__init__()
        if not seeds or nodes < 1:
            raise LabError(
                f"{len(seeds)} seeds and nodes = {nodes} of a chaser must be at least 1 each; please raise them."
            )
        self.nodes = nodes
        self.width = 3 * nodes
        shapes = {
            "query": (self.width, nodes),
            "key": (self.width, nodes),
            "value": (self.width, nodes),
            "output": (nodes, self.width),
            "read_out": (self.width, nodes),
        }
        for name, shape in shapes.items():
            drawn = [RandomStream(seed, ("weights", name)).rng().standard_normal(shape) for seed in seeds]
            self.register_parameter(name, nn.Parameter(torch.from_numpy(shape[0] ** -0.5 * np.stack(drawn))))

    def forward(
        self, parents: Int[Tensor, "model batch token"], mask: Bool[Tensor, "*pattern token token"], steps: int
    ) -> Float[Tensor, "step model batch token node"]:
        """Logits of every node's root after 1, ..., ``steps`` steps; ``mask`` is [T, T], or one a model [E, T, T]."""
        address = torch.eye(self.nodes, dtype=self.key.dtype, device=parents.device).expand(*parents.shape, -1)
        parent = F.one_hot(parents, self.nodes).to(address)
        tokens = torch.cat((address, parent, torch.zeros_like(address)), -1).unsqueeze(2)
        matrices = (matrix.unsqueeze(1) for matrix in (self.query, self.key, self.value, self.output))
        layer = FixedPointAttention(*matrices, damping=1.0)
        visible = mask if mask.ndim == 2 else mask[:, None, None]
        state, logits = tokens, []
        for _ in range(steps):
            state = layer.step(state, tokens, visible)
            logits.append(state.squeeze(2) @ self.read_out.unsqueeze(1))
        return torch.stack(logits)

    def select(self, models: Sequence[int]) -> LoopedChaser:
        """The models at these places, with their own copy of the weights."""
        built = copy.deepcopy(self)
        for name, parameter in self.named_parameters():
            setattr(built, name, nn.Parameter(parameter.detach()[list(models)].clone()))
        return built

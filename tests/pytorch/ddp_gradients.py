"""Run by torchrun: the gradients of this process's part of a joint batch, written by rank 0."""

import sys

import torch
import torch.distributed.nn  # before there is a group
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from xsmmconv.torch import Conv1d, ConvTranspose1d


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        Conv1d(2, 5, 9, dilation=3, padding="same", activation="relu"),
        ConvTranspose1d(5, 3, 4, stride=2),
        torch.nn.Tanh(),
        Conv1d(3, 1, 5, stride=3),
    ).double()


def batch():
    return torch.randn(4, 2, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def main():
    distributed.init_process_group("gloo")
    model = DistributedDataParallel(network())
    model(batch()[distributed.get_rank() :: 2]).square().mean().backward()
    if distributed.get_rank() == 0:
        torch.save([p.grad for p in model.parameters()], sys.argv[1])
    del model  # and before it ends: see Trainer.leave of the example
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()

"""Training on a GPU, on several, or on none."""

import ctypes
import os
import sys

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def keep_memory() -> None:
    """Let glibc keep freed blocks: fetching each step's activations from the kernel anew costs a sixth to a third
    of the time on a CPU."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3
        mallopt(m_mmap_threshold, 1 << 30)
        mallopt(m_trim_threshold, 1 << 30)


def wait_for_all() -> None:
    """Until every process of torchrun has come here."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def join() -> tuple[int, int]:
    """Join the other processes when started by torchrun -> this one's rank, and how many there are."""
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def device_of(rank: int) -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", rank % torch.cuda.device_count())
    return torch.device("cpu")


def parallel(network: nn.Module, world: int, device: torch.device) -> nn.Module:
    if world == 1:
        return network
    if device.type == "cuda":
        return DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(network), device_ids=[device.index])
    return DistributedDataParallel(network)

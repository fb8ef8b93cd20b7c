"""Recognises out-of-memory errors."""

import torch

# PyTorch has no exception class for out-of-memory errors of its CPU allocator, oneDNN, cuDNN and cuBLAS
LACK_OF_MEMORY = (
    "DefaultCPUAllocator",
    "could not create a primitive",
    "could not create a memory object",
    "std::bad_alloc",
    "STATUS_ALLOC_FAILED",
    "out of memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a computation ran out of memory, on the device or the machine."""
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in LACK_OF_MEMORY)
    )

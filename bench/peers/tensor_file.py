"""Reads safetensors files without the safetensors package: u64 length, JSON header, data."""
import json
import mmap
import struct

import numpy
import torch

_NUMPY = {"F64": numpy.float64, "F32": numpy.float32, "I64": numpy.int64, "I32": numpy.int32, "U8": numpy.uint8}


def load(path):
    """All tensors by name. bf16 comes as torch.bfloat16."""
    with open(path, "rb") as file:  # mapped: what is read must not count as memory of the case
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    (length,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, entry in json.loads(data[8:8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            bits = numpy.frombuffer(data, numpy.int16, (end - begin) // 2, begin).copy()
            tensor = torch.from_numpy(bits).view(torch.bfloat16)
        else:
            dtype = _NUMPY[entry["dtype"]]
            count = (end - begin) // numpy.dtype(dtype).itemsize
            tensor = torch.from_numpy(numpy.frombuffer(data, dtype, count, begin).copy())
        tensors[name] = tensor.reshape(entry["shape"])
    return tensors

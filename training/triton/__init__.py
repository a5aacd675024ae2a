"""The model repository of a Triton server: versions, checks, and TensorRT plans."""

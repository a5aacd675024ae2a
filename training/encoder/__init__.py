"""Training of the encoder: networks, batches, losses, export to ONNX, and lower precisions."""

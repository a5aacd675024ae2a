"""The Open Inference Protocol: models, tensors, and the two transports REST and gRPC."""

"""Triton's view of the encoder."""

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

CONFIG = Path(__file__).parent.parent / "model_repository" / "encoder" / "config.pbtxt"


def test_the_config_is_one_that_triton_knows() -> None:
    """Every field, enum and type parses by Triton's own schema, and the tensors are the exported graph's."""
    config = text_format.Parse(CONFIG.read_text(), model_config_pb2.ModelConfig())
    assert config.name == CONFIG.parent.name
    assert [(t.name, list(t.dims)) for t in config.input] == [("images", [224, 224, 3])]
    assert [(t.name, list(t.dims)) for t in config.output] == [("embeddings", [-1])]

#!/usr/bin/env bash
# Take out of an environment what the service never loads: slim.sh ENVIRONMENT
set -euo pipefail
cd "$1"/lib/python3*/site-packages

# plugins for devices that a CPU is not, frontends of formats that a release does not have
rm -rf openvino/libs/libopenvino_{intel_gpu,intel_npu,auto,auto_batch,hetero}_* openvino/libs/cache.json
rm -rf openvino/libs/libopenvino_{tensorflow,tensorflow_lite,pytorch,paddle,jax,gguf}_frontend*
rm -rf openvino/frontend/{tensorflow,pytorch,paddle,jax} openvino/include openvino/tools openvino/libs/libopenvino_c.so*
# Arrow over the network, and the same library under three names of which one is looked for
rm -rf pyarrow/libarrow{_flight,_python_flight}* pyarrow/libarrow_python.so{,.*.*.*} pyarrow/_flight* pyarrow/{src,include}
# what prepares models, which training does; and the library that other languages would load
rm -rf onnxruntime/{transformers,quantization,tools,datasets} onnxruntime/capi/libonnxruntime.so.*
# what only the HTTP side of Triton's client needs
rm -rf gevent gevent-* geventhttpclient* greenlet* zope* brotli* _brotli*
# databases that are no store, and what new migrations are written with
rm -rf sqlalchemy/{testing,dialects/mssql,dialects/mysql,dialects/oracle} alembic/{testing,templates} mako/testing
# tests, sources, headers, hints
find . -type d '(' -name tests -o -name test ')' -prune -exec rm -rf '{}' +
find . -type f -regextype egrep -regex '.*[.](c|cc|cpp|h|hpp|pyx|pxd|pxi|pyi|a)' -delete
# compiled is what a start loads: all of it would be 50 MB
PYTHONDONTWRITEBYTECODE= "$1"/bin/python - <<'END'
import importlib
for name in """
    bentoml bentoml_cli.cli bentoml.io bentoml._internal.utils.circus _bentoml_sdk.service _bentoml_impl.loader
    _bentoml_impl.server _bentoml_impl.server.app _bentoml_impl.server.serving _bentoml_impl.worker.service uvicorn
    uvicorn.loops.uvloop uvicorn.protocols.http.httptools_impl uvicorn.lifespan.on starlette.middleware.cors
    starlette.staticfiles multipart python_multipart grpc.aio grpc_health.v1.health grpc_reflection.v1alpha.reflection
    tritonclient.grpc faiss onnxruntime openvino cv2 numpy pyarrow.compute pyarrow.parquet pydantic_settings orjson
    prometheus_client PIL.JpegImagePlugin PIL.PngImagePlugin PIL.WebPImagePlugin PIL.GifImagePlugin
    opentelemetry.exporter.otlp.proto.http.trace_exporter
    alembic.command sqlalchemy.dialects.postgresql.psycopg sqlalchemy.dialects.sqlite.pysqlite
""".split():
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{name} is not compiled ahead: {error}")
END
# what installs packages
rm -rf pip pip-*.dist-info setuptools setuptools-*.dist-info "$1"/bin/pip*

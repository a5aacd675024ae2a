#!/usr/bin/env bash
# A Triton Inference Server without Docker or a GPU: triton/install.sh FOLDER, then FOLDER/tritonserver takes the flags
# that NVIDIA's image takes, and FOLDER/perf_analyzer those of its load generator. The server is the real one (2.51, from
# the package nvidia-pytriton). It has no C++ backend for ONNX, so backends/onnxruntime/model.py stands in for it: a
# backend of that name, in Python, on the CPU. What is installed is pinned by hashes (requirements/, by make lock).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mkdir -p "$1" && cd "$1" && pwd)
python=${PYTHON:-python3}
read -r minor libraries < <("$python" -c 'import sys, sysconfig; print(f"3.{sys.version_info.minor}", sysconfig.get_config_var("LIBDIR"))')
server=$folder/packages/pytriton/tritonserver

# the backend's processes run the first python3 on PATH, and answer nothing with numpy 2
"$python" -m venv "$folder/env"
pip="$folder/env/bin/pip install --quiet --require-hashes"
$pip -r "$here/requirements/backend.txt"
$pip --no-deps --target "$folder/packages" -r "$here/requirements/server.txt"
$pip --no-deps --target "$folder/client" -r "$here/requirements/client.txt"

mkdir -p "$folder/backends"
cp -r "$server/backends/python" "$folder/backends/"
cp "$server/python_backend_stubs/$minor/triton_python_backend_stub" "$folder/backends/python/"
cp -r "$here/backends/onnxruntime" "$folder/backends/"

cat > "$folder/tritonserver" <<END
#!/usr/bin/env bash
export PATH=$folder/env/bin:\$PATH ORT_DISABLE_TELEMETRY=1
export LD_LIBRARY_PATH=$libraries:$folder/packages/nvidia_pytriton.libs
exec $server/bin/tritonserver --backend-directory=$folder/backends "\$@"
END
# the load generator wants two libraries by the names that the server's package has changed
mkdir -p "$folder/lib"
ln -sf "$folder"/packages/nvidia_pytriton.libs/libb64-*.so.0d "$folder/lib/libb64.so.0d"
ln -sf "$folder"/packages/nvidia_pytriton.libs/libcudart-*.so.12.* "$folder/lib/libcudart.so.12"
cat > "$folder/perf_analyzer" <<END
#!/usr/bin/env bash
export LD_LIBRARY_PATH=$folder/lib
exec $folder/client/bin/perf_analyzer "\$@"
END
chmod +x "$folder/perf_analyzer" "$folder/client/bin/perf_analyzer" "$folder/tritonserver" "$server/bin/tritonserver" "$folder/backends/python/triton_python_backend_stub"

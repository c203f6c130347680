#!/bin/bash
# The model server and nginx in one container. On SIGTERM (docker stop) no new requests are taken, those that were begun
# are answered, and the exit status is 0. MLflow's own entry point exits at once.
#
# MODEL: folder of the model; NGINX: configuration. MLFLOW_MODELS_WORKERS: processes (default: one for each core).
set -u
export __pyfunc_model_path__="${MODEL:-/opt/ml/model}"
export MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT="${MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT:-60}"
python -m uvicorn --host 127.0.0.1 --port 8000 --workers "${MLFLOW_MODELS_WORKERS:-$(nproc)}" \
    mlflow.pyfunc.scoring_server.app:app &
server=$!
nginx -c "${NGINX:-/opt/cxr/nginx.conf}" &
front=$!

stopped=""
stop() {
    stopped=yes
    kill -QUIT "$front" 2>/dev/null # it finishes what it has begun
}
trap stop TERM INT

# One that ends takes the other along. A signal ends the wait, so nginx, and then the server, are waited for again.
wait -n "$server" "$front"
status=$?
kill -QUIT "$front" 2>/dev/null
while kill -0 "$front" 2>/dev/null; do wait "$front"; done
kill -TERM "$server" 2>/dev/null
while kill -0 "$server" 2>/dev/null; do wait "$server"; done
[ -n "$stopped" ] && exit 0
exit "$((status == 0 ? 1 : status))"

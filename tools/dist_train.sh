#!/usr/bin/env bash
# Train on several GPUs of this machine, or of several machines:
#   tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# From the environment: NNODES (1), NODE_RANK (0), MASTER_ADDR (127.0.0.1), PORT (29500).
set -euo pipefail
if (($# < 2)); then
    sed -n '2,4p' "$0" >&2
    exit 2
fi
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --nproc_per_node="$2" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    "$tools/train.py" "$1" --launcher pytorch "${@:3}"

#!/usr/bin/env bash
# Train through Slurm:
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
# From the environment: GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS (none).
set -euo pipefail
if (($# < 4)); then
    sed -n '2,4p' "$0" >&2
    exit 2
fi
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-8}
((per_node > gpus)) && per_node=$gpus

# SRUN_ARGS holds several words on purpose.
# shellcheck disable=SC2086
exec srun --partition="$1" --job-name="$2" \
    --ntasks="$gpus" \
    --ntasks-per-node="$per_node" \
    --gres=gpu:"$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    python -u "$tools/train.py" "$3" --work-dir "$4" --launcher slurm "${@:5}"

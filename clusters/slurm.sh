#!/bin/bash
# A study on the nodes of a SLURM allocation: one Ray cluster over all of them, for as long as the study runs.
#     sbatch --nodes=4 --exclusive --gpus-per-node=4 --time=24:00:00 clusters/slurm.sh studies/rotation_period.py --scale full ...
# From the root of the repository, on a file system that all nodes share; `make setup` made .venv there. When the time is up, submit the
# same again: it goes on where it stopped. So does SLURM by itself (--requeue) after a node has failed or was preempted.
#SBATCH --job-name=quarterturn
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
set -euo pipefail

# Other people share the network, and some nodes: without the token, nobody runs code here. --exclusive is for Ray's sake, which counts
# a node's CPUs and stops whatever Ray of yours runs there at the end.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
export PATH=$PWD/.venv/bin:$PATH
ray get-auth-token --generate > /dev/null

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
address=${nodes[0]}:$((20000 + SLURM_JOB_ID % 10000))  # a port of this job's own
# The first start from a shared file system is slow: Ray's own patience is 30 s.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
srun --cpus-per-task="$SLURM_CPUS_ON_NODE" ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus="$SLURM_CPUS_ON_NODE" -- python "$@" --address "$address"

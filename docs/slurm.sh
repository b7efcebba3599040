#!/bin/bash
# The paper's grid as a Slurm job array, one GPU for each of its tasks. From the checkout, which all nodes see:
#   sbatch docs/slurm.sh        submit it again, and it goes on: finished runs are not trained again
#   sbatch --array=1-16 docs/slurm.sh        the number of parts is the number of tasks
#SBATCH --job-name=capsnet
#SBATCH --array=1-8
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
# SIGTERM two minutes before the time limit (and again as Slurm ends a job); B: to this script, which exec makes the launch
#SBATCH --signal=B:TERM@120
# back into the queue when a node fails or a more important job needs it
#SBATCH --requeue
#SBATCH --output=slurm-%A_%a.log
#SBATCH --open-mode=append

export MLFLOW_TRACKING_URI=${MLFLOW_TRACKING_URI:-http://head:5000}
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

exec .venv/bin/python -m experiments run paper --workers 0 \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --wait --mlruns /shared/mlruns

#!/bin/bash
# The same fit with four targets, as four tasks of an array: sbatch examples/slurm/array.sh FOLDER EPOCHS
# Afterwards this page compares them: lit-compress report FOLDER
#SBATCH --job-name=compress
#SBATCH --array=0-3
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --time=01:00:00
#SBATCH --signal=SIGUSR1@90
#SBATCH --requeue
#SBATCH --open-mode=append

targets=(0.2 0.4 0.6 0.8)
target=${targets[$SLURM_ARRAY_TASK_ID]}
srun python examples/slurm/train.py "${1:-runs/array}/$target" "$target" "${2:-20}"

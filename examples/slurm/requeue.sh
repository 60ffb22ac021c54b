#!/bin/bash
# A fit that is longer than the time of a job: sbatch examples/slurm/requeue.sh FOLDER EPOCHS
# Ninety seconds before the end the processes save a checkpoint, and the job is put into the queue
# again. Add what your cluster needs, such as --partition, or --gres=gpu:2 for one GPU a process.
#SBATCH --job-name=compress
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=4
#SBATCH --time=01:00:00
#SBATCH --signal=SIGUSR1@90
#SBATCH --requeue
#SBATCH --open-mode=append

srun python examples/slurm/train.py "${1:-runs/requeue}" 0.5 "${2:-20}"

#!/usr/bin/env bash
#SBATCH --job-name=canopy
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=exp/slurm-%j.log
# All stages of one recipe, in order: see ./run.sh --help for the options.
# On a cluster, from this folder: sbatch --gres=gpu:1 run.sh --recipe NAME ...
#
# This file finds the project and a Python, and hands on to bin/run_stages.py, as this very process:
# signals and the exit code are that script's. bash 3.2 will do.
set -euo pipefail

self=${BASH_SOURCE[0]}
while [[ -L $self ]]; do
  link=$(readlink "$self")
  case $link in /*) self=$link ;; *) self=$(dirname "$self")/$link ;; esac
done
root=$(CDPATH='' cd "$(dirname "$self")" && pwd -P)
# Slurm runs a copy of this file kept elsewhere: then, the project is the folder of submission.
if [[ ! -f $root/bin/setup_env.sh ]]; then root=${SLURM_SUBMIT_DIR:-$root} self=./run.sh; fi
if [[ ! -f $root/bin/setup_env.sh ]]; then
  printf 'run.sh: no project in %s: give run.sh to sbatch in the project'\''s folder.\n' "$root" >&2
  exit 2
fi

# Without an environment any Python that could make one reads the options and sets it up.
ready=yes
VENV=$("$root/bin/setup_env.sh" --check) || ready=no
if [[ $ready == yes ]]; then python=$VENV/bin/python; else python=$("$root/bin/setup_env.sh" --check-python); fi
export VENV CANOPY_RUN_SH=$self CANOPY_READY=$ready PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
exec "$python" "$root/bin/run_stages.py" "$@"

#!/usr/bin/env bash
#SBATCH --job-name=canopy
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=exp/slurm-%j.log
# All stages of one recipe, in order: see ./run.sh --help, which prints the table below.
# On a cluster, from this folder: sbatch --gres=gpu:1 run.sh --recipe NAME ...
set -euo pipefail

recipe=demo     # --recipe NAME      the folder of recipes/ that prepares the data [demo]
conf=           # --conf FILE        configuration [conf/RECIPE/default.yaml]
tag=            # --tag NAME         folder of this run under EXPDIR [the configuration's name]
datadir=        # --datadir DIR      raw data [data/RECIPE]
dumpdir=        # --dumpdir DIR      tables and features [dump/RECIPE]
expdir=         # --expdir DIR       results [exp/RECIPE]
stage=0         # --stage N|NAME     first stage [0]
stop_stage=5    # --stop-stage N|NAME  last stage [5]
folds=          # --folds "0 1"      folds to train and to infer [all]
n_cycles=       # --n-cycles N       cycles of relabelling [the configuration's]
nj=             # --nj N             processes at once [the cores at hand]
cache=          # --cache DIR        copy what is read of the dump to this machine's own disk [SLURM_TMPDIR, if set]
n_gpus=         # --n-gpus N         GPUs to train on, each fold on --ranks of them [all]
ranks=          # --ranks N          processes (GPUs) that train a fold together, on each node [1]
n_nodes=        # --n-nodes N        nodes that train a fold together, in a job of Slurm [1]
device=auto     # --device NAME      auto, cpu or cuda [auto]
launcher=local  # --launcher NAME    local, or slurm: each stage a job, see docs/cluster.md [local]
seeds=          # --seeds "0 1"      with slurm: runs TAG-seed<n> of one dump [the configuration's]
slurm_conf=     # --slurm-conf FILE  with slurm: what is asked of the cluster [conf/slurm.conf]
settings=()     # --set SECTION.KEY=VALUE  change the configuration; as often as needed
dry_run=false   # --dry-run          print the commands; run and install nothing
force=false     # --force            run stages again even where results are up to date
stages=(0 1 2 3 4 5)
titles=(preprocess split train infer relabel submit)
valued='--recipe --conf --tag --datadir --dumpdir --expdir --stage --stop-stage --folds --n-cycles --nj --cache --n-gpus --ranks --n-nodes --device --launcher --seeds --slurm-conf --set'

log() { printf '%s run.sh: %s\n' "$(date +%Y-%m-%dT%H:%M:%S%z)" "$*" >&2; }
usage_error() {
  printf 'run.sh: %s\n' "$*" >&2
  exit 2
}
usage() {
  echo 'Usage: ./run.sh [--option VALUE | --option=VALUE]...'
  echo "Stages: 0 preprocess, 1 split, 2 train, 3 infer, 4 relabel, 5 submit. Options [defaults]:"
  sed -n 's/^[a-z_]*=.*# --/  --/p' "$root/run.sh"
  echo 'VENV=DIR names the Python environment [.venv], PYTHON=EXE the Python to make it with.'
  echo 'As a job (sbatch run.sh) it is requeued before its time limit, up to CANOPY_MAX_REQUEUES times [20].'
}

# Where the project is. Slurm runs a copy of this file kept elsewhere: then, the folder of submission.
self=${BASH_SOURCE[0]}
while [[ -L $self ]]; do
  link=$(readlink "$self")
  case $link in /*) self=$link ;; *) self=$(dirname "$self")/$link ;; esac
done
caller=$(pwd -P)
root=$(CDPATH='' cd "$(dirname "$self")" && pwd -P)
if [[ ! -f $root/bin/setup_env.sh ]]; then root=${SLURM_SUBMIT_DIR:-$root} self=./run.sh; fi
[[ -f $root/bin/setup_env.sh ]] || usage_error "no project in $root: give run.sh to sbatch in the project's folder."

given=("$@")
while (($#)); do
  option=${1%%=*} value=
  case $1 in
    --help | -h) usage && exit 0 ;;
    --dry-run) dry_run=true && shift && continue ;;
    --force) force=true && shift && continue ;;
    --*) ;;
    *) usage_error "'$1' is no option, and nothing else is taken; known: $valued --dry-run --force --help." ;;
  esac
  [[ " $valued " == *" $option "* ]] || usage_error "unknown option '$option'; known: $valued --dry-run --force --help."
  if [[ $1 == *=* ]]; then
    value=${1#*=}
  elif [[ $# -gt 1 && $2 != --* ]]; then
    value=$2 && shift
  fi
  [[ -n $value ]] || usage_error "$option needs a value: $option VALUE or $option=VALUE."
  name=${option#--}
  if [[ $name == set ]]; then settings+=(--set "$value"); else printf -v "${name//-/_}" '%s' "$value"; fi
  shift
done

stage_number() { # stage_number OPTION NUMBER-OR-NAME
  local i
  for i in "${stages[@]}"; do
    if [[ $2 == "$i" || $2 == "${titles[i]}" ]]; then echo "$i" && return; fi
  done
  usage_error "$1 is '$2', which is no stage: give 0 to 5 or one of ${titles[*]}."
}
require() { [[ $2 =~ $3 ]] || usage_error "$1 is '$2': give $4."; } # OPTION VALUE PATTERN WORDS
stage=$(stage_number --stage "$stage")
stop_stage=$(stage_number --stop-stage "$stop_stage")
((stage <= stop_stage)) || usage_error "--stage $stage comes after --stop-stage $stop_stage: nothing to do."
require --launcher "$launcher" '^(local|slurm)$' 'local or slurm'
[[ $launcher == local || -z $nj$n_gpus$ranks$n_nodes ]] ||
  usage_error '--nj, --n-gpus, --ranks and --n-nodes go without --launcher slurm: --slurm-conf says cpus-per-task, gres, ranks and nodes.'
nj=${nj:-${SLURM_CPUS_PER_TASK:-$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)}}
require --nj "$nj" '^[1-9][0-9]*$' 'a number of processes, 1 or more'
require --n-gpus "${n_gpus:-1}" '^[1-9][0-9]*$' 'a number of GPUs, 1 or more, or --device cpu for none'
require --ranks "${ranks:-1}" '^[1-9][0-9]*$' 'a number of processes, 1 or more'
require --n-nodes "${n_nodes:-1}" '^[1-9][0-9]*$' 'a number of nodes, 1 or more'
require --n-cycles "${n_cycles:-0}" '^(0|[1-9][0-9]*)$' 'a number of cycles, 0 or more'
require --folds "${folds:-0}" '^[0-9]+( [0-9]+)*$' 'numbers of folds, as in --folds "0 1"'
require --device "$device" '^(auto|cpu|cuda)$' 'auto, cpu or cuda'
require --seeds "${seeds:-0}" '^[0-9]+( [0-9]+)*$' 'seeds, as in --seeds "0 1"'
[[ $launcher == slurm || -z $seeds$slurm_conf ]] || usage_error '--seeds and --slurm-conf go with --launcher slurm.'
[[ -f $root/recipes/$recipe/prepare.py ]] ||
  usage_error "--recipe is '$recipe', but there is no recipes/$recipe/prepare.py: give one of" \
    "$(cd "$root/recipes" && printf '%s ' */prepare.py | sed 's,/prepare.py,,g')."
for name in conf datadir dumpdir expdir slurm_conf; do # what the caller names is seen from the caller's folder
  if [[ -n ${!name} && ${!name} != /* && $caller != "$root" ]]; then printf -v "$name" '%s' "$caller/${!name}"; fi
done
conf=${conf:-conf/$recipe/default.yaml} datadir=${datadir:-data/$recipe}
dumpdir=${dumpdir:-dump/$recipe} expdir=${expdir:-exp/$recipe}
if [[ -z $tag ]]; then tag=${conf##*/} tag=${tag%.*}; fi
require --tag "$tag" '^[A-Za-z0-9][A-Za-z0-9._-]*$' 'a folder name of letters, digits and "._-"'

ready=true
if [[ $dry_run == true ]]; then
  venv=$("$root/bin/setup_env.sh" --check) || ready=false
else
  venv=$("$root/bin/setup_env.sh")
fi
cd "$root"
[[ -f $conf ]] || usage_error "--conf is '$conf', but there is no such file."
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
if [[ -n $n_cycles ]]; then settings+=(--set "relabel.n_cycles=$n_cycles"); fi
if [[ $launcher == slurm && $force == true ]]; then settings+=(--force); fi
if [[ $launcher == slurm ]]; then # nothing of it is done here
  [[ $ready == true ]] || usage_error "--dry-run of --launcher slurm needs the environment: bin/setup_env.sh first."
  if [[ $dry_run == true ]]; then settings+=(--dry-run); fi
  exec env VENV="$venv" "$venv/bin/python" bin/cluster.py submit --recipe "$recipe" --conf "$conf" --tag "$tag" \
    --datadir "$datadir" --dumpdir "$dumpdir" --expdir "$expdir" --device "$device" --stage "$stage" \
    --stop-stage "$stop_stage" ${folds:+--folds "$folds"} ${seeds:+--seeds "$seeds"} \
    ${slurm_conf:+--slurm-conf "$slurm_conf"} ${cache:+--cache "$cache"} ${settings[@]+"${settings[@]}"}
fi
if [[ $force == true ]]; then settings+=(--force); fi
shared=(--conf "$conf" --nj "$nj" ${settings[@]+"${settings[@]}"}) # :+ because bash 3 calls an empty array unset
common=(--recipe "$recipe" --tag "$tag" --datadir "$datadir" --dumpdir "$dumpdir" --expdir "$expdir" --device "$device" "${shared[@]}")
infer_options=("${common[@]}" ${folds:+--folds "$folds"} ${cache:+--cache "$cache"})
train_options=("${infer_options[@]}" ${n_gpus:+--n-gpus "$n_gpus"} ${ranks:+--ranks "$ranks"} ${n_nodes:+--n-nodes "$n_nodes"})

go_on() { # go_on WORDS: say them and how to go on
  log "$*" "$self$( ((${#given[@]} == 0)) || printf ' %q' "${given[@]}") --stage $current"
}
fail() { # fail CODE: say what failed and how to go on
  go_on "$now failed with exit code $1 (the reason is above); to go on once it is mended:"
  exit "$1"
}
requeue() { # a job that runs into its time limit goes on as the same job, a bounded number of times
  local times=${SLURM_RESTART_COUNT:-0} most=${CANOPY_MAX_REQUEUES:-20}
  [[ $caught == SIGUSR1 && -n ${SLURM_JOB_ID:-} ]] || return 0
  if ((times >= most)); then
    log "not requeued: it was $times times, CANOPY_MAX_REQUEUES is $most"
  elif scontrol requeue "$SLURM_JOB_ID"; then
    log "job $SLURM_JOB_ID is requeued, for the $((times + 1)). time" && sleep 90
  fi
}
stop() {
  requeue
  go_on "$now was stopped by $caught; what is done is saved, and this goes on from there:"
  exit 75
}
# Signals are for the stage at work, which saves what it has and says so by exit code 75. Ctrl-C goes
# to all processes of a terminal, so it is passed on as SIGTERM, which asks for no more; again: abort.
child='' caught='' n_caught=0 n_interrupts=0
pass_on() { # pass_on CAUGHT SENT
  caught=${caught:-SIG$1} n_caught=$((n_caught + 1))
  if [[ -n $child ]]; then kill -s "$2" "$child" 2>/dev/null || true; fi
}
interrupt() {
  n_interrupts=$((n_interrupts + 1))
  if ((n_interrupts > 1)); then pass_on INT INT; else pass_on INT TERM; fi
}
call() {
  if [[ $dry_run == true ]]; then
    printf '%q' "$venv/bin/python" && printf ' %q' "$@" && echo
    return
  fi
  if [[ -n $caught ]]; then stop; fi
  local code=0 before=-1
  CANOPY_PARENT=$$ "$venv/bin/python" "$@" &
  child=$!
  while ((before != n_caught)); do # a signal ends the wait, not the child
    before=$n_caught code=0
    wait "$child" || code=$?
  done
  child=''
  if ((code == 130 && n_interrupts > 1)); then exit 130; fi
  if ((code == 75)) || [[ -n $caught && ($code == 0 || $code -gt 128) ]]; then
    caught=${caught:-a signal to one of its processes}
    stop
  fi
  ((code == 0)) || fail "$code"
}
trap 'pass_on TERM TERM' TERM
trap 'pass_on USR1 USR1' USR1
trap interrupt INT

log "recipe $recipe, conf $conf, tag $tag, data $datadir, dump $dumpdir, exp $expdir, stages $stage-$stop_stage, $nj processes, device $device"
now='the check of the configuration' current=$stage
if [[ $dry_run == false ]]; then # the check takes the lock; this shell keeps it for all stages
  mkdir -p "$expdir/$tag"
  exec 9>> "$expdir/$tag/.lock"
fi
CANOPY_TAKE_LOCK=9 call bin/check_config.py "${common[@]}" --stages "${stages[*]:stage:stop_stage-stage+1}"
export CANOPY_LOCKS=9
if [[ -z $n_cycles && $stage -le 4 && $stop_stage -ge 4 ]]; then
  if [[ $ready == true ]]; then
    n_cycles=$("$venv/bin/python" bin/check_config.py "${common[@]}" --print relabel.n_cycles) || fail $?
  else
    n_cycles=1 && log 'nothing is set up yet that could read the configuration: one cycle is shown'
  fi
fi
for ((current = stage; current <= stop_stage; current++)); do
  now="stage $current (${titles[current]})"
  log "$now"
  case $current in
    0)
      call "recipes/$recipe/prepare.py" --datadir "$datadir" --out "$dumpdir/tables" "${shared[@]}"
      call bin/preprocess.py "${common[@]}"
      ;;
    1) call bin/split.py "${common[@]}" ;;
    2) call bin/sed_train.py "${train_options[@]}" --cycle 0 ;;
    3) call bin/sed_infer.py "${infer_options[@]}" --cycle 0 ;;
    4)
      for ((cycle = 1; cycle <= n_cycles; cycle++)); do
        log "cycle $cycle of $n_cycles"
        call bin/relabel.py "${common[@]}" --cycle "$cycle"
        call bin/sed_train.py "${train_options[@]}" --cycle "$cycle"
        call bin/sed_infer.py "${infer_options[@]}" --cycle "$cycle"
      done
      ;;
    5) call bin/submit.py "${common[@]}" ;;
  esac
done
if [[ $dry_run == false && $stop_stage == 5 ]]; then log "report: $expdir/$tag/report.html"; fi
log "done in $SECONDS s"

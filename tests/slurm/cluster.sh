#!/usr/bin/env bash
# A real Slurm on this one machine, for tests: nothing of it outlives `stop`, nothing of it is a site's.
#
#   tests/slurm/cluster.sh check          say why it cannot run here, with exit code 1; else nothing
#   tests/slurm/cluster.sh start FOLDER   start it, with all its files in FOLDER; SLURM_CONF=FOLDER/slurm.conf
#   tests/slurm/cluster.sh node FOLDER start|kill   the compute daemon with all that it runs, as a node dies
#   tests/slurm/cluster.sh stop FOLDER    end all of it
#
# It needs root (jobs are run as the user who asks for them) and Debian's slurm-wlm and munge.
set -euo pipefail

say() { printf 'cluster.sh: %s\n' "$*" >&2; }
die() { say "$@" && exit 1; }

check() {
  local program
  ((EUID == 0)) || die 'a Slurm for tests needs root'
  for program in munged slurmctld slurmd sbatch; do
    command -v "$program" >/dev/null || die "no $program here: apt-get install slurm-wlm munge"
  done
}

configure() { # configure FOLDER
  local folder=$1 cpus memory
  cpus=$(nproc)
  memory=$(($(awk '/^MemTotal/ { print $2 }' /proc/meminfo) / 1024 - 512))
  mkdir -p "$folder"/{state,spool,munge}
  cat >"$folder/slurm.conf" <<CONF
ClusterName=canopytest
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=${SLURMCTLD_PORT:-16817}
SlurmdPort=${SLURMD_PORT:-16818}
AuthType=auth/munge
CryptoType=crypto/munge
# The second lets a requeued job begin after seconds, not minutes.
AuthInfo=socket=$folder/munge/socket,cred_expire=5
SlurmUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=600
SlurmdTimeout=10
OverTimeLimit=0
SchedulerParameters=sched_interval=2,bf_interval=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=localhost NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=08:00:00 State=UP
PartitionName=short Nodes=localhost MaxTime=00:10:00 State=UP
CONF
  dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 status=none
  chmod 700 "$folder/munge" && chmod 600 "$folder/munge/key"
}

start() { # start FOLDER
  check
  local folder
  mkdir -p "$1"
  folder=$(cd "$1" && pwd -P)
  configure "$folder"
  export SLURM_CONF=$folder/slurm.conf
  munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
  slurmctld -f "$SLURM_CONF"
  slurmd -N localhost -f "$SLURM_CONF"
  idle "$folder" 90
}

idle() { # idle FOLDER SECONDS: wait until the node takes work
  local i state=
  for ((i = 0; i < $2 * 2; i++)); do
    state=$(SLURM_CONF=$1/slurm.conf sinfo --noheader --partition=main --format=%t 2>/dev/null || true)
    case $state in idle | mix | alloc) return ;; esac
    sleep 0.5
  done
  tail -n 5 "$1"/slurm*.log >&2 || true
  die "the node is '$state' after $2 s"
}

end() { # end PIDFILE [SIGNAL]: end a daemon of ours and wait for it
  local pid i
  [[ -f $1 ]] && pid=$(<"$1") || return 0
  kill -s "${2:-TERM}" "$pid" 2>/dev/null || return 0
  for ((i = 0; i < 100; i++)); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

below() { # below PID: a process and all it started
  local child
  echo "$1"
  for child in $(ps -o pid= --ppid "$1"); do below "$child"; done
}

node() { # node FOLDER start|kill
  export SLURM_CONF=$1/slurm.conf
  case $2 in
    start) slurmd -N localhost -f "$SLURM_CONF" && idle "$1" 90 ;;
    kill)
      # The keepers of the steps are found by the spool folder their job scripts lie in.
      local all script
      end "$1/slurmd.pid" KILL
      for script in $(pids_of_jobs "$1"); do all+=" $(below "$script")"; done
      # shellcheck disable=SC2086 # a list of numbers
      kill -KILL ${all:-} 2>/dev/null || true
      ;;
    *) die "node FOLDER start or kill" ;;
  esac
}

pids_of_jobs() { # slurmstepd processes whose standard error or working files are of this cluster
  local entry
  for entry in /proc/[0-9]*; do
    [[ $(<"$entry/comm") == slurmstepd ]] 2>/dev/null || continue
    if tr '\0' '\n' <"$entry/environ" 2>/dev/null | grep -qxF "SLURM_CONF=$1/slurm.conf"; then echo "${entry#/proc/}"; fi
  done 2>/dev/null
}

stop() { # stop FOLDER
  [[ -f $1/slurm.conf ]] || return 0
  export SLURM_CONF=$1/slurm.conf
  scancel --state=PENDING,RUNNING --user="$(id -un)" 2>/dev/null || true
  node "$1" kill
  end "$1/slurmctld.pid"
  end "$1/munge/pid"
}

case ${1:-} in
  check) check ;;
  start) start "$2" ;;
  stop) stop "$(cd "$2" && pwd -P)" ;;
  node) node "$(cd "$2" && pwd -P)" "$3" ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
esac

#!/usr/bin/env bash
# A real Slurm on this one machine, for tests: nothing of it outlives `stop`, nothing of it is a site's.
#
#   tests/slurm/cluster.sh check          say why it cannot run here, with exit code 1; else nothing
#   tests/slurm/cluster.sh start FOLDER   start it, with all its files in FOLDER; SLURM_CONF=FOLDER/slurm.conf
#   tests/slurm/cluster.sh node FOLDER NAME start|kill   one node with all that it runs, as a node dies
#   tests/slurm/cluster.sh stop FOLDER    end all of it
#
# It needs root (jobs are run as the user who asks for them) and Debian's slurm-wlm and munge. Three
# nodes, n1 to n3, have a network, a host name and mounts of their own; FOLDER/unshared is a disk that
# each has for itself. Where the machine allows no such namespaces there is n1 alone, without them.
set -euo pipefail

self=${BASH_SOURCE[0]}
bridge='' net=''

say() { printf 'cluster.sh: %s\n' "$*" >&2; }
die() { say "$@" && exit 1; }

check() {
  local program
  ((EUID == 0)) || die 'a Slurm for tests needs root'
  for program in munged slurmctld slurmd sbatch; do
    command -v "$program" >/dev/null || die "no $program here: apt-get install slurm-wlm munge"
  done
}

namespaces() { # whether nodes can have a network of their own; if not, say why
  local why
  why=$(unshare --net --uts --mount sh -c 'hostname n1 && mount -t tmpfs none /mnt &&
    ip link add eth0 type veth peer name eth1 && ip link add br0 type bridge' 2>&1) ||
    { say "one node only, for there are no namespaces: ${why##*$'\n'}" && return 1; }
}

names() { # names FOLDER: of the bridge and the network, which no other such cluster has
  bridge=canopy$(<"$1/number") net=198.18.$(<"$1/number") # the block that is set apart for tests
}

configure() { # configure FOLDER
  local folder=$1 control=127.0.0.1 main=n1 frail=n1 size name
  size="CPUs=$(nproc) State=UNKNOWN"
  size+=" RealMemory=$(($(awk '/^MemTotal/ { print $2 }' /proc/meminfo) / 1024 / 3 - 256))"
  mkdir -p "$folder"/{state,munge,unshared,spool.n{1,2,3}}
  echo $(($$ % 250 + 1)) >"$folder/number"
  names "$folder"
  if namespaces; then
    control=$net.1
    printf '%s\n' '127.0.0.1 localhost' "$net.11 n1" "$net.12 n2" "$net.13 n3" >"$folder/hosts"
  fi
  cat >"$folder/slurm.conf" <<CONF
ClusterName=canopytest
SlurmctldHost=localhost($control)
SlurmctldPort=$((16000 + 2 * $(<"$folder/number")))
SlurmdPort=$((16001 + 2 * $(<"$folder/number")))
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
SlurmdSpoolDir=$folder/spool.%n
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.%n.log
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
PartitionName=all Nodes=ALL MaxTime=00:10:00 State=UP
CONF
  for name in $(nodes "$folder"); do
    if [[ -f $folder/hosts ]]; then
      echo "NodeName=$name NodeAddr=$net.1${name#n} $size"
    else
      echo "NodeName=$name NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 $size"
    fi
  done >>"$folder/slurm.conf"
  # `frail` is of the node that a test lets die; other tests keep off it where they can.
  if [[ -f $folder/hosts ]]; then main="n[1-2]" frail=n3; fi
  printf 'PartitionName=%s MaxTime=08:00:00 State=UP\n' "main Nodes=$main Default=YES" "frail Nodes=$frail" >>"$folder/slurm.conf"
  dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 status=none
  chmod 700 "$folder/munge" && chmod 600 "$folder/munge/key"
}

nodes() { if [[ -f $1/hosts ]]; then echo n1 n2 n3; else echo n1; fi; } # nodes FOLDER: their names

start() { # start FOLDER
  local name
  configure "$1"
  export SLURM_CONF=$1/slurm.conf
  munged --force --key-file="$1/munge/key" --socket="$1/munge/socket" --num-threads=2 \
    --pid-file="$1/munge/pid" --log-file="$1/munge/log" --seed-file="$1/munge/seed"
  if [[ -f $1/hosts ]]; then
    ip link add "$bridge" type bridge
    ip address add "$net.1/24" dev "$bridge"
    ip link set "$bridge" up
  fi
  slurmctld -f "$SLURM_CONF"
  for name in $(nodes "$1"); do boot "$1" "$name"; done
  for name in $(nodes "$1"); do idle "$1" "$name" 90; done
}

boot() { # boot FOLDER NODE
  names "$1"
  local cable=$bridge$2
  # What runs on a node is known by these two, which all it starts inherits: see `kill_node`.
  export SLURM_CONF=$1/slurm.conf SLURMD_NODENAME=$2
  if [[ -f $1/hosts ]]; then
    unshare --net --uts --mount "$self" _inside "$1" "$2" "$cable" $$
    ip link set "$cable" master "$bridge" up
  else
    slurmd -N "$2" -f "$SLURM_CONF"
  fi
}

inside() { # inside FOLDER NODE CABLE PROCESS: in namespaces of its own, a cable to that process's
  names "$1"
  hostname "$2"
  mount --bind "$1/hosts" /etc/hosts
  mount -t tmpfs none "$1/unshared"
  ip link set lo up
  ip link add eth0 type veth peer name "$3" netns "$4"
  ip address add "$net.1${2#n}/24" dev eth0
  ip link set eth0 up
  slurmd -N "$2" -f "$SLURM_CONF"
}

idle() { # idle FOLDER NODE SECONDS: wait until the node takes work
  local i state=
  for ((i = 0; i < $3 * 2; i++)); do
    state=$(SLURM_CONF=$1/slurm.conf sinfo --noheader --nodes="$2" --partition=all --format=%t 2>/dev/null || true)
    case $state in idle | mix | alloc) return ;; esac
    sleep 0.5
  done
  tail -n 5 "$1"/slurm*.log >&2 || true
  die "node $2 is '$state' after $3 s"
}

end() { # end PIDFILE: end a daemon of ours and wait for it
  local pid i
  [[ -f $1 ]] && pid=$(<"$1") || return 0
  kill "$pid" 2>/dev/null || return 0
  for ((i = 0; i < 100; i++)); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

running_on() { # running_on FOLDER NODE: its daemon, all that its jobs started, and the keepers of its jobs
  local entry parent
  for entry in /proc/[0-9]*; do
    tr '\0' '\n' <"$entry/environ" | grep -cxF -e "SLURM_CONF=$1/slurm.conf" -e "SLURMD_NODENAME=$2" | grep -qx 2 || continue
    echo "${entry#/proc/}"
    # A keeper writes its title over its environment.
    parent=$(awk '/^PPid:/ { print $2 }' "$entry/status")
    if [[ $(<"/proc/$parent/comm") == slurmstepd ]]; then echo "$parent"; fi
  done 2>/dev/null
}

kill_node() { # kill_node FOLDER NODE
  local all
  while all=$(running_on "$1" "$2") && [[ -n $all ]]; do
    # Stopped first: a keeper that sees its job die would report that to the controller.
    # shellcheck disable=SC2086 # a list of numbers
    { kill -STOP $all; kill -KILL $all; } 2>/dev/null || true
    sleep 0.2
  done
  # The kernel takes its time to remove what was in a network that is gone.
  if [[ -f $1/hosts ]]; then names "$1" && { ip link delete "$bridge$2" 2>/dev/null || true; }; fi
}

stop() { # stop FOLDER
  local name
  [[ -f $1/slurm.conf ]] || return 0
  for name in $(nodes "$1"); do kill_node "$1" "$name"; done
  end "$1/slurmctld.pid"
  end "$1/munge/pid"
  if [[ -f $1/hosts ]]; then ip link delete "$bridge" 2>/dev/null || true; fi
}

case ${1:-}-${4:-} in
  check-) check ;;
  start-) check && mkdir -p "$2" && start "$(cd "$2" && pwd -P)" ;;
  stop-) stop "$(cd "$2" && pwd -P)" ;;
  node-start) boot "$2" "$3" && idle "$2" "$3" 90 ;;
  node-kill) kill_node "$2" "$3" ;;
  _inside-*) inside "${@:2}" ;;
  *) sed -n '2,12s/^# \{0,1\}//p' "$self" >&2 && exit 2 ;;
esac

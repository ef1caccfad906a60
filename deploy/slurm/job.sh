# What encode.sbatch and train.sbatch share. They source it by its path from the repository's folder, in which jobs are
# submitted: SLURM itself runs a copy of the script that lies elsewhere.
# shellcheck shell=bash
set -euo pipefail

fail() { # EXIT_CODE MESSAGE
  echo "error: $2" >&2
  exit "$1"
}

need() { # VARIABLE MEND
  [[ -n ${!1:-} ]] || fail 2 "$1 is not set; $2"
}

enter_environment() { # the programs of VENV first, and for Ray a folder and a token of this job alone
  local venv=${VENV:-.venv}
  [[ -x $venv/bin/python ]] || fail 2 "$venv/bin/python: there is no such program; run \`make setup\`, or set VENV"
  PATH=$(cd "$venv/bin" && pwd):$PATH
  export PATH
  # Ray's sockets lie there, and their paths may have 107 bytes; nobody else may look in, so the folder is made anew.
  export RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}
  mkdir --mode=700 "$RAY_TMPDIR" || fail 1 "$RAY_TMPDIR: it is there already; remove it, or submit again"
  trap 'rm -rf -- "$RAY_TMPDIR"' EXIT
  # Without a token, everybody in the cluster's network could run code in this job's Ray.
  RAY_AUTH_TOKEN=$(od --address-radix=n --format=x1 --read-bytes=32 /dev/urandom | tr --delete ' \n')
  export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
  export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300 # many nodes that read one environment are slow to start
}

heard=
child=
mark= # the files MARK.pid, the process to signal, and MARK.done, left by a command that succeeded

signal_command() { # SIGNAL
  kill -"$1" "$(cat "$mark.pid" 2> /dev/null || echo "$child")" 2> /dev/null || true
}

stop() { # SIGNAL_HEARD INSISTENCE
  heard=$1
  [[ -n $child ]] || return 0
  signal_command TERM
  echo "stopping on $1; what is running is finished, or saved, first" >&2
  # The time limit ends a job that has not queued itself again by then.
  { timeout "${GRACE_SECONDS:-480}" tail --pid="$child" -f /dev/null || signal_command "$2"; } &
}

# Run a command: on one node by itself, on several as the command of Ray's head, which is the node of this script.
# SIGTERM asks it to stop, and INSISTENCE is the signal after GRACE_SECONDS. Does not return; the exit code is the
# command's.
run_job() { # INSISTENCE COMMAND...
  local insistence=$1 status=0 job
  shift
  mark=$RAY_TMPDIR/job
  # shellcheck disable=SC2016 # for the inner shell
  local marked=(bash -c '(echo $BASHPID > "$0.new" && mv "$0.new" "$0.pid" && exec "$@") && touch "$0.done"' "$mark")
  local nodes=${SLURM_JOB_NUM_NODES:-1}
  if ((nodes == 1)); then
    job=("${marked[@]}" "$@")
  else
    local hosts head
    hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
    head=${hosts%%$'\n'*}
    # shellcheck disable=SC2016 # for the inner shell
    local own_folder=(bash -c '[[ $SLURM_NODEID == 0 ]] || { mkdir --mode=700 "$RAY_TMPDIR" &&
      trap "rm -rf -- \"$RAY_TMPDIR\"" EXIT; } && "$@"' node)
    job=(
      srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_ON_NODE"
      "${own_folder[@]}"
      ray symmetric-run --address "$head:6379" --min-nodes "$nodes"
      --num-cpus "$SLURM_CPUS_ON_NODE" --num-gpus "${SLURM_GPUS_ON_NODE:-0}"
      -- "${marked[@]}" env RAY_ADDRESS="$head:6379" "$@"
    )
  fi
  # shellcheck disable=SC2064 # what insists is known now
  trap "stop USR1 $insistence" USR1 # the time limit is near
  # shellcheck disable=SC2064
  trap "stop TERM $insistence" TERM # cancelled or preempted
  "${job[@]}" &
  child=$!
  [[ -z $heard ]] || stop "$heard" "$insistence"
  while kill -0 "$child" 2> /dev/null; do
    wait "$child" || true # a signal ends the waiting, too
  done
  wait "$child" || status=$?
  trap '' USR1 TERM
  if ((status == 0)); then
    # Ray's symmetric-run gives 0 as well where Ray itself did not start.
    [[ -e $mark.done ]] || fail 1 "the work was not begun; the lines above say what kept Ray from starting"
  elif [[ $heard == USR1 ]]; then
    # Not on TERM: what was cancelled must not come back, and what was preempted SLURM queues again itself.
    scontrol requeue "$SLURM_JOB_ID" || fail 1 "job $SLURM_JOB_ID was not queued again; submit it again, and it goes on"
  fi
  exit "$status"
}

#!/usr/bin/env bash
# Keeps one part of a cluster running on this host, whatever kills it:
#
#   node.sh head              the head, with what it needs to be found again: its tables are in Redis
#   node.sh worker HEAD_IP    a node that joins the head, and joins it again when it was cut off for too long
#   node.sh redis             Redis with a password and an append-only file, for a host of its own or beside the head
#   node.sh stop              end what this script keeps running here, and on the head all that Redis knows of Ray
#   node.sh brc COMMAND ...   `brc` on the head, which knows the cluster's runs
#
# systemd keeps it where it runs, a loop of this script elsewhere. Asking for what runs already changes nothing.
#
#   BRC_REDIS          host:port of Redis; empty on the head starts one there
#   BRC_CLUSTER        on the head: a name, brc by default, that no other cluster with this Redis has
#   BRC_RESOURCES      what this node has beside CPUs and GPUs, such as {"brc-actors": 1000}
#   BRC_ROLES          on the head: which of learner, replay and actors have nodes of their own, separated by commas
#   BRC_RAY_OPTIONS    further options of `ray start`
#   BRC_STORE          on the head: folder or URL for checkpoints and snapshots of runs that name none
# Secrets are in files, ~/.brc/redis_password and ~/.ray/auth_token, or in BRC_REDIS_PASSWORD and RAY_AUTH_TOKEN. State,
# logs and runs are in ~/.brc.
set -euo pipefail

state=$HOME/.brc
here=$(cd "$(dirname "$0")" && pwd)
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 BRC_HOME=$state
# Workers wait for so long for a head that is away, with all that runs on them; Ray's own 60 s are less than a reboot.
export RAY_gcs_rpc_server_reconnect_timeout_s=600
# gRPC's own resolver does not find names that only /etc/hosts has, as in containers.
export PYTHONUNBUFFERED=1 GRPC_DNS_RESOLVER=native
unset OMP_NUM_THREADS PYTHONWARNINGS # Ray's ssh sessions set it to 1, and learners would inherit it

refuse() {
  echo "node.sh: $1" >&2
  exit 2
}

password() {
  if [ -n "${BRC_REDIS_PASSWORD:-}" ]; then
    echo "$BRC_REDIS_PASSWORD"
    return
  fi
  [ -s "$state/redis_password" ] ||
    refuse "there is no Redis password in $state/redis_password: make one with \`make secrets\`, which file_mounts bring here"
  cat "$state/redis_password"
}

token() {
  [ -s "$HOME/.ray/auth_token" ] || [ -n "${RAY_AUTH_TOKEN:-}" ] ||
    refuse "there is no token in $HOME/.ray/auth_token: make one with \`make secrets\`, which file_mounts bring here"
}

own_ip() { # the address that other hosts reach this one at
  hostname -I 2>/dev/null | tr ' ' '\n' | grep -m1 -E '^[0-9]+(\.[0-9]+){3}$' ||
    python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("10.255.255.255", 1)); print(s.getsockname()[0])'
}

# In the foreground, once; whoever keeps it running calls this again when it returns.
run_head() {
  token
  local redis=${BRC_REDIS:-$(own_ip):6380}
  export RAY_REDIS_ADDRESS=$redis RAY_external_storage_namespace=${BRC_CLUSTER:-brc} BRC_REDIS=$redis
  BRC_REDIS_PASSWORD=$(password)
  export BRC_REDIS_PASSWORD
  ray stop --force >/dev/null 2>&1 || true # what the last one has left
  # shellcheck disable=SC2086
  exec ray start --head --block --port=6379 --num-cpus=0 --dashboard-host=127.0.0.1 --metrics-export-port=8080 \
    --redis-username=default --redis-password="$BRC_REDIS_PASSWORD" --resources="${BRC_RESOURCES:-{\}}" \
    ${BRC_AUTOSCALING:+--autoscaling-config="$BRC_AUTOSCALING"} ${BRC_RAY_OPTIONS:-}
}

run_worker() {
  token
  ray stop --force >/dev/null 2>&1 || true
  # shellcheck disable=SC2086
  exec ray start --block --address="$1:6379" --metrics-export-port=8080 --resources="${BRC_RESOURCES:-{\}}" \
    ${BRC_RAY_OPTIONS:-}
}

run_redis() {
  local port=${BRC_REDIS:-:6380} secret
  secret=$(password)
  mkdir -p "$state/redis"
  (
    umask 077
    printf '%s\n' "bind 127.0.0.1 $(own_ip)" "port ${port##*:}" "requirepass $secret" 'protected-mode yes' \
      "dir $state/redis" 'appendonly yes' 'appendfsync everysec' 'save ""' 'maxmemory-policy noeviction' > "$state/redis/redis.conf"
  )
  exec redis-server "$state/redis/redis.conf"
}

check_role() {
  case $1 in
    head) token; password >/dev/null ;;
    worker) [ -n "${2:-}" ] || refuse "name the head: node.sh worker HEAD_IP"; token ;;
    redis) password >/dev/null; command -v redis-server >/dev/null || refuse "redis-server is not installed: apt-get install redis-server" ;;
  esac
}

has_systemd() { [ -d /run/systemd/system ] && sudo -n true 2>/dev/null; }

keep() {
  local role=$1
  check_role "$@"
  mkdir -p "$state"
  chmod 700 "$state"
  if [ "$role" = head ] && [ -z "${BRC_REDIS:-}" ]; then "$0" redis; fi
  # What it is to be is written down: it is started again without whoever asks for it now.
  (
    umask 077
    echo "#!/usr/bin/env bash"
    echo "export HOME=$(printf %q "$HOME") PATH=$(printf %q "$PATH")"
    # Ray's autoscaler tells a node what it is through variables, and stores are reached through those of their clients.
    for name in $(compgen -e | grep -E '^(BRC|RAY|AWS|GOOGLE|FSSPEC)_'); do
      echo "export $name=$(printf %q "${!name}")"
    done
    echo "exec $(printf '%q ' "$here/node.sh" run "$@")"
  ) > "$state/keep-$role.new"
  chmod 700 "$state/keep-$role.new"
  if cmp -s "$state/keep-$role.new" "$state/keep-$role" && running "$role"; then
    rm "$state/keep-$role.new"
  else
    mv "$state/keep-$role.new" "$state/keep-$role"
    start "$role"
  fi
  ready "$role"
}

running() {
  if has_systemd; then
    systemctl is-active --quiet "brc-$1"
  else
    # After a reboot the number may be another process's.
    [ -s "$state/$1.pid" ] && grep -qs "keep-$1" "/proc/$(cat "$state/$1.pid")/cmdline"
  fi
}

start() {
  local role=$1
  halt "$role"
  if has_systemd; then
    sudo tee "/etc/systemd/system/brc-$role.service" >/dev/null <<UNIT
[Unit]
Description=BRC at scale: $role
After=network-online.target
StartLimitIntervalSec=0
[Service]
User=$(id -un)
ExecStart=$state/keep-$role
Restart=always
RestartSec=1
LimitNOFILE=1048576
KillMode=control-group
TimeoutStopSec=30
StandardOutput=append:$state/$role.log
StandardError=append:$state/$role.log
[Install]
WantedBy=multi-user.target
UNIT
    sudo systemctl daemon-reload
    sudo systemctl enable --quiet --now "brc-$role"
  else
    # shellcheck disable=SC2016
    setsid bash -c 'ulimit -n 1048576 2>/dev/null; trap "kill -TERM \$child 2>/dev/null; wait \$child; exit 0" TERM
      while true; do "$0" & child=$!; wait $child; sleep 1 & child=$!; wait $child; done' \
      "$state/keep-$role" >> "$state/$role.log" 2>&1 < /dev/null &
    echo $! > "$state/$role.pid"
  fi
}

ready() { # until it answers; a head that does not come up says why in its log
  local role=$1
  for _ in $(seq 120); do
    case $role in
      redis) (exec 3<>"/dev/tcp/127.0.0.1/$(sed -n 's/^port //p' "$state/redis/redis.conf")") 2>/dev/null && return ;;
      head) (exec 3<>/dev/tcp/127.0.0.1/8265) 2>/dev/null && return ;;
      worker) pgrep -u "$(id -u)" -x raylet >/dev/null && return ;;
    esac
    sleep 0.5
  done
  tail -n 20 "$state/$role.log" >&2
  echo "node.sh: $role does not answer after 60 s; $state/$role.log has the rest" >&2
  exit 1
}

halt() {
  local role=$1 pid
  if has_systemd && [ -e "/etc/systemd/system/brc-$role.service" ]; then
    sudo systemctl disable --quiet --now "brc-$role"
  elif running "$role"; then
    pid=$(cat "$state/$role.pid")
    kill -TERM "$pid" 2>/dev/null || true
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -KILL -- "-$pid" 2>/dev/null || true
    rm -f "$state/$role.pid"
  fi
}

settings() { # what the head was started with
  # shellcheck disable=SC1090
  if [ -f "$state/keep-head" ]; then source <(grep '^export ' "$state/keep-head"); fi
  export BRC_REDIS=${BRC_REDIS:-$(own_ip):6380} RAY_ADDRESS=${RAY_ADDRESS:-$(own_ip):6379}
  BRC_REDIS_PASSWORD=$(password)
  export BRC_REDIS_PASSWORD
}

# Shells that Ray keeps open here for tunnels, of operators who went without a word, such as by losing their network.
end_tunnels() {
  local shell found
  found=$(pgrep -u "$(id -u)" -f '^[^ ]*sh -c while true; do sleep 86400; done$') || return 0
  for shell in $found; do
    # shellcheck disable=SC2046
    kill "$shell" $(pgrep -P "$shell") 2>/dev/null || true
  done
}

# Ray would start again what ran when it ended.
forget() {
  settings
  python3 -c 'import os
from ray._private.gcs_utils import cleanup_redis_storage
host, port = os.environ["BRC_REDIS"].rsplit(":", 1)
cleanup_redis_storage(host, int(port), os.environ["BRC_REDIS_PASSWORD"], False, os.environ.get("BRC_CLUSTER", "brc"))' \
    >/dev/null 2>&1 || echo "node.sh: Redis could not be told that this cluster has ended" >&2
}

case ${1:-} in
  brc)
    shift
    settings
    exec python3 -m cluster "$@"
    ;;
  run) shift; part=$1; shift; "run_$part" "$@" ;;
  head | worker | redis) keep "$@" ;;
  stop)
    for part in worker head; do halt $part; done
    end_tunnels
    ray stop --force >/dev/null 2>&1 || true
    if [ -f "$state/keep-head" ]; then
      forget
      rm "$state/keep-head"
    fi
    halt redis
    ;;
  *) sed -n '2,21p' "$0"; exit 2 ;;
esac

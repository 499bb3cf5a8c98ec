# The history of two computers that share a store over NFS: runs on the server, with RIG's commands (see ./check).
#
# c1 and c2 store, overwrite, annotate, delete, fetch and find, small models and large ones. Meanwhile c1 is cut off
# and comes back, c1 crashes and boots, the server's daemon restarts, and the server loses its power. What was
# acknowledged is written here, not on the share, and in the end both look for it.
export PYTHONPATH=/payload:/payload/site PYTHONDONTWRITEBYTECODE=1
store=/mnt/nfs/team/models.db
lines=/results/lines stop=/results/stop
mkdir -p "$lines" /export/team
SECONDS=0

say() { echo "$(printf '%4d' "$SECONDS") s: $*"; }

# work CLIENT WORKER SEED: one operation after the other, until there is a file $stop. All is emulated here: of the large
# models, which have several parts, none is larger than it has to be.
work() {
    local smaller="import sys, history; history.LARGE = 1_200_000, 2_400_000; history.main(*sys.argv[1:])"
    "$1" python3 -c "$smaller" "$store" "$2" "$3" 100000 "$stop" > "$lines/$2" 2> "$lines/$2.err"
}

done_by() { grep -c '"is": "done"' "$lines/$1"; }

# goes_on WORKER N: wait until a worker has had N more operations acknowledged.
goes_on() {
    local before=$(done_by "$1") end=$((SECONDS + 200)) began=$SECONDS
    until (($(done_by "$1") >= before + $2)); do
        ((SECONDS < end)) || { say "$1 does not go on:"; tail -n 3 "$lines/$1" "$lines/$1.err"; exit 1; }
        sleep 0.2
    done
    say "$1 went on: $2 operations in $((SECONDS - began)) s"
}

# storing WORKER: wait until it has begun to store a model.
storing() {
    local end=$((SECONDS + 200))
    until tail -n 1 "$lines/$1" | grep -q '"kind": "store".*"is": "begun"'; do
        ((SECONDS < end)) || { say "$1 stores nothing"; exit 1; }
        sleep 0.05
    done
}

# ended PID WORKER: wait for a worker's end, which has to be a good one.
ended() { wait "$1" || { say "$2 ended with an error:"; cat "$lines/$2.err"; exit 1; }; }

c1 python3 -c "import sqlite3, views_runs; print('views_runs', views_runs.__version__, 'with SQLite', sqlite3.sqlite_version)"
c1 grep /mnt/nfs /proc/mounts

say "two clients work"
work c1 ann 1 & ann=$!
work c2 bob 2 & bob=$!
goes_on ann 4
goes_on bob 4

storing ann
say "c1 is cut off inside a store"
cut c1
goes_on bob 4
sleep 8
say "c1 comes back"
heal c1
goes_on ann 4

storing ann
say "c1 crashes inside a store"
crash c1
wait "$ann"
goes_on bob 4
say "c1 boots"
boot c1
work c1 cid 3 & cid=$!
goes_on cid 4

storing bob
say "the server's daemon restarts"
nfsd-restart
goes_on bob 4
goes_on cid 4

storing cid
say "the server loses its power"
server-crash
goes_on bob 4
goes_on cid 4

touch "$stop"
ended "$bob" bob
ended "$cid" cid
say "what is there, as each client sees it"
look() { "$1" python3 /payload/history.py check "$store" "$lines"/{ann,bob,cid} > "/results/$1" 2>&1; }
status=0
wrong() { say "WRONG: $*"; status=1; }
look c1 & first=$!
look c2 || wrong "what c2 sees"
wait "$first" || wrong "what c1 sees"
head -n 40 /results/c1 /results/c2
say "both ask doctor about the share"
ask() { "$1" python3 -m views_runs model --store "$store" doctor --peer > "/results/doctor-$1" 2>&1; }
ask c1 & first=$!
ask c2 || wrong "doctor on c2"
wait "$first" || wrong "doctor on c1"
head -n 40 /results/doctor-c1 /results/doctor-c2
grep -q "coherence .* acknowledged commits arrived" /results/doctor-c1 /results/doctor-c2 || wrong "no commits of the peer"
say "failed operations:"
grep -h '"failed"' "$lines"/{ann,bob,cid}
say "the end, with status $status"
exit "$status"

# Guards the folder $2 of a server, or ends what runs there. $1 is one of:
#   guard  makes the folder, says "ready", reads standard input until its end of file, then ends the server;
#          the line "release" lets the server be.
#   run    runs the program $3... with its process id in a file of the folder, unless the end has begun.
#   end    ends the server now.
# Ending is: an immediate shutdown of what runs, then the removal of shared memory and folder.
mode=$1
folder=$2

if [ "$mode" = run ]; then
    # The id is there before the mark is looked for, and the end sets its mark before it looks for ids: so either this
    # process sees the mark, or the end sees this process.
    : >"$folder/run.$$" && [ ! -e "$folder/ended" ] || exit 125
    shift 2
    exec "$@"
fi

trap '' HUP INT PIPE QUIT TERM

if [ "$mode" = guard ]; then
    mkdir -m 700 -- "$folder" 2>&1 || exit 1
    echo ready
    while read -r word; do
        if [ "$word" = release ]; then
            exit 0
        fi
    done
fi

# Whether a process is still one of this folder: its arguments name the folder, and a dead process has none.
ours() {
    if [ -e /proc/self/cmdline ]; then
        arguments=$(tr '\0' ' ' <"/proc/$1/cmdline")
    else
        arguments=$(ps -o args= -p "$1")
    fi 2>/dev/null
    case $arguments in
    *"$folder"*) return 0 ;;
    *) return 1 ;;
    esac
}

# Sends $1 to what runs, and waits up to $2 tenths of a second until nothing does.
stop() {
    signal=$1
    tenths=$2
    while :; do
        running=
        for run in "$folder"/run.*; do
            if ours "${run##*.}"; then
                running="$running ${run##*.}"
            fi
        done
        if [ -z "$running" ]; then
            return 0
        fi
        if [ -n "$signal" ]; then
            kill -s "$signal" $running
            signal=
        fi
        if [ "$tenths" -eq 0 ]; then
            return 1
        fi
        tenths=$((tenths - 1))
        sleep 0.1 || sleep 1
    done 2>/dev/null
}

touch "$folder/ended" 2>/dev/null
stop QUIT 100 || stop KILL 100

# A postmaster that could not clean up leaves its lock file; its 7th line is the key and the id of a System V segment.
lock=$folder/data/postmaster.pid
if [ -e "$lock" ]; then
    segment=$(sed -n 7p "$lock")
    ipcrm -m "${segment##* }"
fi >/dev/null 2>&1

# Once more where a last writer was faster than the removal.
tries=100
while [ -e "$folder" ] && [ "$tries" -gt 0 ]; do
    rm -rf -- "$folder"
    [ ! -e "$folder" ] || sleep 0.1 || sleep 1
    tries=$((tries - 1))
done 2>/dev/null

# Runs one server for one test process and ends it when that process ends.
#
# $1 is the server's folder, with the scripts `run` (becomes the server), `signal` (sends signal $1 to the server whose
# process group is $2) and, where there is something to clean up, `finish`. Commands come in on stdin, one a line: `start`,
# `signal NAME`. What happens goes out on stdout: `started`, `signalled`, `exited STATUS`.
#
# Stdin is a pipe whose other end only the test process holds: it closes when that process ends, however it ends.
dir=$1
cd / || exit 1
# RabbitMQ takes a file or more for each queue, MongoDB for each collection and connection: with the usual limit of 1,024 a server stands
# still at some hundred queues. More than this is of no use, and Erlang would make room for it.
files=65536
most=$(ulimit -H -n)
[ "$most" = unlimited ] || [ "$most" -ge "$files" ] || files=$most
now=$(ulimit -S -n)
[ "$now" != unlimited ] && [ "$now" -ge "$files" ] || ulimit -S -n "$files"
while read -r word argument; do
    case $word in
    start)
        {
            setsid sh "$dir/run" >>"$dir/log" 2>&1 </dev/null &
            echo $! >"$dir/group"
            echo started
            wait $!
            status=$?
            # The leader is gone; so must be what it started (RabbitMQ's port mapper) before a new one is started.
            kill -s KILL -- "-$!"
            rm -f "$dir/group"
            echo "exited $status"
        } 2>/dev/null &
        ;;
    signal)
        [ -f "$dir/group" ] && sh "$dir/signal" "$argument" "$(cat "$dir/group")" 2>>"$dir/log"
        echo signalled
        ;;
    esac
done
[ -f "$dir/group" ] && sh "$dir/signal" KILL "$(cat "$dir/group")"
[ -f "$dir/finish" ] && sh "$dir/finish"
wait
rm -rf -- "$dir"

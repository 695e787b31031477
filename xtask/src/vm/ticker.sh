#!/bin/sh
# ocf:lab:ticker: what runs is a loop that says on the second serial port, five times a second, that it runs. Starts and stops are said there too.
pidfile=/run/ticker-$OCF_RESOURCE_INSTANCE.pid
say() { echo "$1 $OCF_RESOURCE_INSTANCE $(hostname) $(date +%T.%N)" >/dev/ttyS1; }
# What has ended and is not buried yet, by a first process that is only a shell, has no command line any more.
runs() { [ -s "$pidfile" ] && grep -q TICK "/proc/$(cat "$pidfile")/cmdline" 2>/dev/null; }
case $1 in
start)
    runs && exit 0
    say START
    setsid sh -c 'exec 3>/dev/ttyS1; while echo "TICK $1 $(hostname)" >&3; do sleep 0.2; done' sh "$OCF_RESOURCE_INSTANCE" \
        </dev/null >/dev/null 2>&1 &
    echo $! >"$pidfile"
    ;;
stop)
    runs || exit 0
    [ ! -e /run/ticker-stubborn ] || exit 1
    kill "$(cat "$pidfile")"
    while runs; do sleep 0.1; done
    rm -f "$pidfile"
    say STOP
    ;;
monitor)
    runs || exit 7
    ;;
meta-data)
    cat <<END
<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="ticker">
<version>1.0</version>
<longdesc lang="en">Says on the second serial port that it runs.</longdesc>
<shortdesc lang="en">Ticks on a serial port</shortdesc>
<parameters/>
<actions>
<action name="start" timeout="20s"/>
<action name="stop" timeout="20s"/>
<action name="monitor" timeout="20s" interval="10s"/>
<action name="meta-data" timeout="5s"/>
</actions>
</resource-agent>
END
    ;;
*)
    exit 3
    ;;
esac

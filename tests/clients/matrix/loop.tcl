# A new connection for every operation, 8 at a time in the event loop; ends with the line ANSWERED WRONG FDS.

set server [split $env(APP_SERVER) :]
set next 0
set working 0
set answered 0
set wrong 0

proc open_files {} {
    return [llength [glob -nocomplain /proc/[pid]/fd/*]]
}

proc start {} {
    global next server env
    if {$next >= $env(APP_OPERATIONS)} {
        if {[incr ::working -1] == 0} { set ::done 1 }
        return
    }
    set key key-$next
    incr next
    set channel [socket [lindex $server 0] [lindex $server 1]]
    fconfigure $channel -translation binary -blocking 0 -buffering none
    fileevent $channel readable [list answer $channel $key]
    set value value-of-$key
    puts -nonewline $channel "set $key 0 0 [string length $value]\r\n$value\r\nget $key\r\n"
    set ::text($channel) ""
}

proc answer {channel key} {
    append ::text($channel) [read $channel]
    if {![string match "*END\r\n" $::text($channel)] && ![eof $channel]} return
    set found [string trim [lindex [split $::text($channel) \n] 2]]
    close $channel
    if {$found eq "value-of-$key"} {
        incr ::answered
    } else {
        incr ::wrong
        puts stderr "$key has $found"
    }
    start
}

set files [open_files]
for {set number 0} {$number < $env(APP_CONCURRENCY)} {incr number} {
    incr working
    start
}
vwait done
puts "$answered $wrong [expr {[open_files] - $files}]"
exit [expr {$answered != $env(APP_OPERATIONS)}]

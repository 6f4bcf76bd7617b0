# Tcl's sockets: blocking and with events; bound to the wildcard address before every connect.
lassign $argv server no_server

proc ask {connection key} {
    puts -nonewline $connection "get $key\r\n"
    lmap _ {1 2 3} {gets $connection}
}

proc dial {args} {
    set connection [socket {*}$args]
    fconfigure $connection -translation binary -buffering none
    return $connection
}

foreach key {one two three} {
    set connection [dial 127.0.0.1 $server]
    puts [ask $connection $key]
    puts [expr {[lindex [fconfigure $connection -peername] 2] == $server}]
    close $connection
}
puts [catch {socket 127.0.0.1 $no_server} problem]:$problem
set connection [dial -myaddr 127.0.0.1 127.0.0.1 $server]
puts [ask $connection chosen]
close $connection

set connection [dial -async 127.0.0.1 $server]
fconfigure $connection -blocking 0
fileevent $connection writable {
    fileevent $connection writable {}
    puts -nonewline $connection "get later\r\n"
}
fileevent $connection readable {
    if {[gets $connection line] >= 0} {
        puts $line
        if {[string trim $line] eq "END"} {set done 1}
    }
}
vwait done
close $connection

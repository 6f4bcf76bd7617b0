<?php
/* Two users of one server, one after another. The first sets a time-out through the sockets
 * extension on a stream that PHP itself opened. Prints the port and the time-out that each
 * found. */
$server = $argv[1];
foreach ([2, 0] as $seconds) {
    $stream = stream_socket_client("tcp://$server");
    $socket = socket_import_stream($stream);
    socket_getsockname($socket, $address, $port);
    echo $port, " ", json_encode(socket_get_option($socket, SOL_SOCKET, SO_RCVTIMEO)), "\n";
    fwrite($stream, "version\r\n");
    fgets($stream);
    if ($seconds)
        socket_set_option($socket, SOL_SOCKET, SO_RCVTIMEO, ["sec" => $seconds, "usec" => 0]);
    fclose($stream);
    unset($socket);
}

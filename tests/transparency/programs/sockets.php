<?php
// PHP's streams, as the memcache extension uses them, in their ways.
[, $server, $no_server] = $argv;

function ask($stream, $key)
{
    fwrite($stream, "get $key\r\n");
    for ($i = 0; $i < 3; $i++) {
        echo "line: ", fgets($stream);
    }
}

foreach ([null, 5.0] as $timeout) {
    foreach (["one", "two"] as $key) {
        $stream = $timeout
            ? stream_socket_client("tcp://127.0.0.1:$server", $code, $text, $timeout)
            : fsockopen("127.0.0.1", $server);
        ask($stream, $key);
        echo json_encode(array_diff_key(stream_get_meta_data($stream), ["uri" => 0])), "\n";
        var_dump(feof($stream), fclose($stream));
    }
}
var_dump(@fsockopen("127.0.0.1", $no_server, $code, $text), $code);

$stream = stream_socket_client("tcp://127.0.0.1:$server", $code, $text, 5,
                               STREAM_CLIENT_CONNECT | STREAM_CLIENT_ASYNC_CONNECT);
stream_set_blocking($stream, false);
[$read, $write, $odd] = [[], [$stream], []];
var_dump(stream_select($read, $write, $odd, 5));
fwrite($stream, "get one\r\n");
[$read, $write, $odd] = [[$stream], [], []];
var_dump(stream_select($read, $write, $odd, 5));
stream_set_blocking($stream, true);
var_dump(stream_get_contents($stream, 35));
stream_set_timeout($stream, 0, 50000);
var_dump(fgets($stream), stream_get_meta_data($stream)["timed_out"]);
var_dump(stream_socket_shutdown($stream, STREAM_SHUT_WR), fgets($stream), feof($stream));
fclose($stream);

ask(fsockopen("127.0.0.1", $server), "end");
passthru("echo /proc/self/fd/[3-9]");
exit(5);

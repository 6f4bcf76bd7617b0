<?php
/* One operation with a new client of the kind APP_CLIENT; used by loop.php and page.php. */

function value_of($key)
{
    return "value-of-$key";
}

function host_and_port()
{
    $server = getenv('APP_SERVER');
    $colon = strrpos($server, ':');
    return [trim(substr($server, 0, $colon), '[]'), (int)substr($server, $colon + 1)];
}

function memcached_client($kind)
{
    $client = new Memcached();
    $client->setOption(Memcached::OPT_BINARY_PROTOCOL, $kind === 'binary');
    $client->setOption(Memcached::OPT_NO_BLOCK, $kind === 'buffering');
    $client->setOption(Memcached::OPT_BUFFER_WRITES, $kind === 'buffering');
    $client->addServer(...host_and_port());
    return $client;
}

function memcache_client()
{
    [$host, $port] = host_and_port();
    $client = new Memcache();
    $client->addServer($host, $port, false);
    return $client;
}

function looked_up($key)
{
    $kind = getenv('APP_CLIENT');
    $client = $kind === 'memcache' ? memcache_client() : memcached_client($kind);
    $value = $client->get($key);
    if ($value === false) {
        $client->set($key, value_of($key));
        $value = $client->get($key);
    }
    $kind === 'memcache' ? $client->close() : $client->quit();
    return $value;
}

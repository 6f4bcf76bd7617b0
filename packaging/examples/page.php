<?php
/* A web page from the cache, by an unmodified php-memcached; see php-fpm/. */

$cache = new Memcached();
$cache->addServer('127.0.0.1', 11211);

$key = $_SERVER['QUERY_STRING'] ?: 'nothing';
$value = $cache->get($key);
if ($value === false) {
    $value = "value-of-$key";
    $cache->set($key, $value);
}
echo $value;

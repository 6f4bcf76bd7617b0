<?php
/* Answers /?KEY with its value; a page of php-fpm. */

require __DIR__ . '/lookup.php';

echo looked_up($_SERVER['QUERY_STRING']);

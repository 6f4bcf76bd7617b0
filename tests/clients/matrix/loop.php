<?php
/* A new client for every operation; ends with the line ANSWERED WRONG FDS. */

require __DIR__ . '/lookup.php';

function open_files()
{
    return count(scandir('/proc/self/fd'));
}

$operations = (int)getenv('APP_OPERATIONS');
$answered = $wrong = 0;
$files = open_files();
for ($number = 0; $number < $operations; $number++) {
    $value = looked_up("key-$number");
    if ($value === value_of("key-$number")) {
        $answered++;
    } elseif ($value !== false) {
        $wrong++;
        fwrite(STDERR, "key-$number has $value\n");
    }
}
echo "$answered $wrong ", open_files() - $files, "\n";
exit($answered === $operations ? 0 : 1);

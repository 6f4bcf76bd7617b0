#!/usr/bin/perl
# A new client for every operation. Usage: loop.pl plain|fast|fast-noreply
# Ends with the line ANSWERED WRONG FDS. With noreply every connection ends with a write that is not
# answered; all of them are looked for at the end.
use strict;
use warnings;
use Cache::Memcached;
use Cache::Memcached::Fast;

my ($kind) = @ARGV;
# Fast finds the port after the last colon, and knows no brackets.
(my $server = $ENV{APP_SERVER}) =~ tr/[]//d;

sub open_files {
    return scalar(() = glob '/proc/self/fd/*');
}

sub client {
    return Cache::Memcached->new({ servers => [$server] }) if $kind eq 'plain';
    return Cache::Memcached::Fast->new({
        servers => [{ address => $server, noreply => $kind eq 'fast-noreply' }],
        io_timeout => 10,
    });
}

sub looked_up {
    my ($key) = @_;
    my $client = client();
    my $stored = $client->set($key, "value-of-$key");
    my $value = $client->get($key);
    $client->set("last-$key", "value-of-last-$key");
    $client->disconnect_all;
    return $value;
}

my ($answered, $wrong) = (0, 0);
my $files = open_files();
my @keys = map { "key-$_" } 0 .. $ENV{APP_OPERATIONS} - 1;
for my $key (@keys) {
    my $value = looked_up($key);
    next unless defined $value;
    $value eq "value-of-$key" ? $answered++ : $wrong++;
}
my $client = client();
my $patience = 60;
for my $key (map { "last-$_" } @keys) {
    my $value = $client->get($key);
    while (!defined $value && $patience-- > 0) {
        select undef, undef, undef, 0.05;
        $value = $client->get($key);
    }
    next if defined $value && $value eq "value-of-$key";
    print STDERR "$key was lost or went wrong\n";
    $wrong++;
}
$client->disconnect_all;
print "$answered $wrong ", open_files() - $files, "\n";
exit($answered == @keys && !$wrong ? 0 : 1);

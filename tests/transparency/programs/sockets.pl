# Perl's sockets: IO::Socket with and without timeouts, bare ones, sysread and buffered reads.
use strict;
use warnings;
use Errno;
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket;

$| = 1;
my ($server, $no_server) = @ARGV;

sub ask {
    my ($connection, $key) = @_;
    print $connection "get $key\r\n";
    $connection->flush;
    for (1 .. 3) {
        print "line: ", scalar <$connection>;
    }
}

for my $timeout (undef, 5) {
    for my $key (qw(one two)) {
        my $connection = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $server,
                                               Timeout => $timeout) or die $!;
        $connection->autoflush(1);
        print "number ", fileno($connection), " blocking ", $connection->blocking, "\n";
        ask($connection, $key);
        print "close ", close($connection), "\n";
    }
}
my $refused = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $no_server);
print "refused ", defined $refused ? "not" : $! + 0, "\n";

for my $key (qw(one two)) {
    socket(my $connection, PF_INET, SOCK_STREAM, 0) or die $!;
    print "connect ", connect($connection, sockaddr_in($server, INADDR_LOOPBACK)), "\n";
    print "wrote ", syswrite($connection, "get $key\r\n"), "\n";
    my $select = IO::Select->new($connection);
    print "ready ", scalar $select->can_read(5), "\n";
    my $got = "";
    sysread($connection, $got, 4096, length $got) while $got !~ /END\r\n$/;
    print $got;
    print "early ", scalar $select->can_read(0.02), "\n";
    shutdown($connection, 2) if $key eq "two";
    close($connection);
}
my $child = fork;
if (!$child) {
    ask(IO::Socket::INET->new("127.0.0.1:$server"), "kid");
    POSIX::_exit(3);
}
waitpid $child, 0;
print "child $?\n";
print `echo /proc/self/fd/[3-9]`;
ask(IO::Socket::INET->new("127.0.0.1:$server"), "end");

# Ruby's sockets: blocking, in threads, with timeouts, with select, over a fork.
require "socket"
require "timeout"

$stdout.sync = true
server, no_server = ARGV.map { |port| Integer(port) }

def ask(connection, key)
  connection.write("get #{key}\r\n")
  3.times.map { connection.gets }
end

%w[one two].each do |key|
  connection = TCPSocket.new("127.0.0.1", server)
  p connection.fileno, connection.peeraddr[1] == server, ask(connection, key)
  connection.close
  p connection.closed?
end
begin
  TCPSocket.new("127.0.0.1", no_server)
rescue SystemCallError => error
  p error.class
end
Socket.tcp("127.0.0.1", server, connect_timeout: 5) { |connection| p ask(connection, "one") }

connection = Socket.new(:INET, :STREAM)
connected = connection.connect_nonblock(Socket.sockaddr_in(server, "127.0.0.1"), exception: false)
p [0, :wait_writable].include?(connected)
p IO.select(nil, [connection], nil, 5)&.at(1)&.size
connection.write_nonblock("get one\r\n")
p IO.select([connection], nil, nil, 5)&.at(0)&.size
p connection.read(35)
p connection.read_nonblock(1, exception: false)
begin
  Timeout.timeout(0.05) { connection.readpartial(1) }
rescue Timeout::Error
  p :given_up
end
connection.close_write
p connection.read
connection.close

p 5.times.map { |i| Thread.new { ask(TCPSocket.new("127.0.0.1", server), "k-#{i}") }.value }
child = fork do
  p ask(TCPSocket.new("127.0.0.1", server), "kid")
  exit!(3)
end
Process.wait(child)
p $?.exitstatus
GC.start
puts `echo /proc/self/fd/[3-4]`
p ask(TCPSocket.new("127.0.0.1", server), "end")

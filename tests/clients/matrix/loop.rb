# A new Dalli client for every operation; ends with the line ANSWERED WRONG FDS.

require "dalli"

def open_files
  Dir.children("/proc/self/fd").size
end

def looked_up(key)
  client = Dalli::Client.new(ENV["APP_SERVER"], socket_timeout: 10)
  client.fetch(key) { "value-of-#{key}" }
  client.get(key)
ensure
  client.close
end

operations = ENV["APP_OPERATIONS"].to_i
threads = ENV["APP_CONCURRENCY"].to_i
answered = wrong = 0
lock = Mutex.new
looked_up("first")
files = open_files
keys = Queue.new(operations.times.map { |number| "key-#{number}" }).close
Array.new(threads) do
  Thread.new do
    while (key = keys.pop)
      value = looked_up(key)
      lock.synchronize do
        if value == "value-of-#{key}"
          answered += 1
        else
          wrong += 1
          warn "#{key} has #{value.inspect}"
        end
      end
    end
  end
end.each(&:join)
puts "#{answered} #{wrong} #{open_files - files}"
exit answered == operations

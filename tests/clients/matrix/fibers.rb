# Dalli clients in eight Fibers that take turns between requests; ends with the line ANSWERED WRONG FDS.

require "dalli"

def open_files
  Dir.children("/proc/self/fd").size
end

def looked_up(key)
  client = Dalli::Client.new(ENV["APP_SERVER"], socket_timeout: 10)
  client.set(key, "value-of-#{key}")
  Fiber.yield
  client.get(key)
ensure
  client.close
end

operations = ENV["APP_OPERATIONS"].to_i
answered = wrong = 0
files = open_files
keys = operations.times.map { |number| "key-#{number}" }
fibers = Array.new(ENV["APP_CONCURRENCY"].to_i) do
  Fiber.new do
    while (key = keys.shift)
      value = looked_up(key)
      if value == "value-of-#{key}"
        answered += 1
      else
        wrong += 1
        warn "#{key} has #{value.inspect}"
      end
      Fiber.yield
    end
  end
end
fibers.each { |fiber| fiber.resume if fiber.alive? } while fibers.any?(&:alive?)
puts "#{answered} #{wrong} #{open_files - files}"
exit answered == operations

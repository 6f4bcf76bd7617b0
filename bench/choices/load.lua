-- The load of choices.py, for wrk with as many threads as connections: then a thread waits for one
-- answer at a time and can tell whether it is that of its key. Every request is a connection of its
-- own, as from a proxy in front. The last line is JSON.

local threads = {}
local keys = 1000

function setup(thread)
   thread:set("number", #threads)
   table.insert(threads, thread)
end

function init()
   wrong = 0
   last = number * 37
   wrk.headers["Connection"] = "close"
end

function request()
   last = (last + 1) % keys
   return wrk.format("GET", "/?key-" .. last)
end

function response(status, _, body)
   if status ~= 200 or body ~= "value-of-key-" .. last then
      wrong = wrong + 1
   end
end

function done(summary, latency)
   local wrong = 0
   for _, thread in ipairs(threads) do
      wrong = wrong + thread:get("wrong")
   end
   local errors = summary.errors
   io.write(string.format(
      '{"rate": %.3f, "requests": %d, "p50": %.3f, "p99": %.3f, "failed": %d}\n',
      summary.requests / summary.duration * 1e6, summary.requests,
      latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      wrong + errors.connect + errors.read + errors.write + errors.timeout))
end

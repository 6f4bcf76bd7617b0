-- A new LuaSocket connection for every operation, 8 coroutines; ends with the line ANSWERED WRONG FDS.

local socket = require("socket")

local host, port = os.getenv("APP_SERVER"):match("^(.*):(%d+)$")
local operations = tonumber(os.getenv("APP_OPERATIONS"))
local concurrency = tonumber(os.getenv("APP_CONCURRENCY"))
local next_number, answered, wrong = 0, 0, 0

local function open_files()
  local pid = io.open("/proc/self/stat"):read("n")
  local list = io.popen("ls /proc/" .. pid .. "/fd")
  local _, count = list:read("a"):gsub("\n", "")
  list:close()
  return count
end

local function line(connection)
  while true do
    local text, why = connection:receive("*l")
    if text then
      return text
    end
    assert(why == "timeout", why)
    coroutine.yield()
  end
end

local function look_up(key)
  local connection = assert(socket.connect(host, tonumber(port)))
  connection:settimeout(0)
  local value = "value-of-" .. key
  connection:send(("set %s 0 0 %d\r\n%s\r\nget %s\r\n"):format(key, #value, value, key))
  line(connection)
  line(connection)
  local found = line(connection)
  line(connection)
  connection:close()
  return found
end

local function work()
  while next_number < operations do
    local key = "key-" .. next_number
    next_number = next_number + 1
    local found = look_up(key)
    if found == "value-of-" .. key then
      answered = answered + 1
    else
      wrong = wrong + 1
      io.stderr:write(key, " has ", tostring(found), "\n")
    end
  end
end

local files = open_files()
local workers = {}
for number = 1, concurrency do
  workers[number] = coroutine.create(work)
end
repeat
  local alive = false
  for _, worker in ipairs(workers) do
    if coroutine.status(worker) ~= "dead" then
      alive = true
      assert(coroutine.resume(worker))
    end
  end
  socket.sleep(0.001)
until not alive
print(("%d %d %d"):format(answered, wrong, open_files() - files))
os.exit(answered == operations and 0 or 1)

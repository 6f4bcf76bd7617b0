# Answers /?KEY with its value, each request with a Dalli client of its own.

require "dalli"

run(lambda do |request|
  key = request["QUERY_STRING"]
  client = Dalli::Client.new(ENV["APP_SERVER"], socket_timeout: 10)
  begin
    client.fetch(key) { "value-of-#{key}" }
    [200, { "content-type" => "text/plain" }, [client.get(key)]]
  ensure
    client.close
  end
end)

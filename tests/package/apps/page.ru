# Answers /?KEY with its value, each request with a Dalli client of its own.

require "dalli"

run(lambda do |request|
  client = Dalli::Client.new("127.0.0.1:11211")
  begin
    value = client.fetch(request["QUERY_STRING"]) { "value-of-#{request["QUERY_STRING"]}" }
    [200, { "content-type" => "text/plain" }, [value]]
  ensure
    client.close
  end
end)

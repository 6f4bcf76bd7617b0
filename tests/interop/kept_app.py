"""An application that looks each key up with a client of its own, as giving_up_app, but never gives up."""

from giving_up_app import look_up


def app(environ, start_response):
    body = look_up(environ["QUERY_STRING"]).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]

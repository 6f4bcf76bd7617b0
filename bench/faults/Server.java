/*
 * A web server of the JDK that asks memcached on a new connection for every request.
 * Usage: Server.java PORT
 */

import com.sun.net.httpserver.HttpServer;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.util.concurrent.Executors;

public class Server {
    static String lookUp(String[] server, String key) throws Exception {
        try (Socket socket = new Socket(server[0], Integer.parseInt(server[1]))) {
            String value = "value-of-" + key;
            socket.getOutputStream().write(String.format("set %s 0 0 %d\r\n%s\r\nget %s\r\n", key,
                value.length(), value, key).getBytes());
            BufferedReader answers = new BufferedReader(new InputStreamReader(socket.getInputStream()));
            answers.readLine();
            answers.readLine();
            String found = answers.readLine();
            answers.readLine();
            return found;
        }
    }

    public static void main(String[] arguments) throws Exception {
        String[] memcached = System.getenv("APP_SERVER").split(":");
        HttpServer server = HttpServer.create(
            new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 128);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/", exchange -> {
            try {
                byte[] body = lookUp(memcached, exchange.getRequestURI().getQuery()).getBytes();
                exchange.sendResponseHeaders(200, body.length);
                exchange.getResponseBody().write(body);
            } catch (Exception error) {
                exchange.sendResponseHeaders(500, -1);
            }
            exchange.close();
        });
        server.start();
    }
}

/*
 * A new connection for every operation, by spymemcached or by java.net.Socket.
 * Usage: Loop.java spy|spy-binary|socket. Ends with the line ANSWERED WRONG FDS.
 */

import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import net.spy.memcached.ConnectionFactoryBuilder;
import net.spy.memcached.MemcachedClient;

public class Loop {
    interface Lookup {
        String of(String key) throws Exception;
    }

    static final String[] SERVER = System.getenv("APP_SERVER").split(":");
    static final String HOST = SERVER[0];
    static final int PORT = Integer.parseInt(SERVER[1]);

    static String valueOf(String key) {
        return "value-of-" + key;
    }

    static String withSpy(String key, ConnectionFactoryBuilder.Protocol protocol) throws Exception {
        MemcachedClient client = new MemcachedClient(
            new ConnectionFactoryBuilder().setProtocol(protocol).setOpTimeout(10000).build(),
            List.of(new InetSocketAddress(HOST, PORT)));
        try {
            client.set(key, 60, valueOf(key)).get();
            return (String) client.get(key);
        } finally {
            client.shutdown(5, TimeUnit.SECONDS);
        }
    }

    static String withSocket(String key) throws IOException {
        try (Socket socket = new Socket(HOST, PORT)) {
            String value = valueOf(key);
            socket.setTcpNoDelay(true);
            socket.getOutputStream().write(String.format(
                "set %s 0 0 %d\r\n%s\r\nget %s\r\n", key, value.length(), value, key).getBytes());
            BufferedReader answers = new BufferedReader(
                new InputStreamReader(socket.getInputStream()));
            answers.readLine();
            answers.readLine();
            String found = answers.readLine();
            answers.readLine();
            return found;
        }
    }

    static int openFiles() {
        return new File("/proc/self/fd").list().length;
    }

    public static void main(String[] arguments) throws Exception {
        Lookup lookup = switch (arguments[0]) {
            case "spy" -> key -> withSpy(key, ConnectionFactoryBuilder.Protocol.TEXT);
            case "spy-binary" -> key -> withSpy(key, ConnectionFactoryBuilder.Protocol.BINARY);
            default -> Loop::withSocket;
        };
        int operations = Integer.parseInt(System.getenv("APP_OPERATIONS"));
        AtomicInteger answered = new AtomicInteger();
        AtomicInteger wrong = new AtomicInteger();
        lookup.of("first");
        int files = openFiles();
        ExecutorService threads = Executors.newFixedThreadPool(
            Integer.parseInt(System.getenv("APP_CONCURRENCY")));
        for (int number = 0; number < operations; number++) {
            String key = "key-" + number;
            threads.submit(() -> {
                try {
                    String value = lookup.of(key);
                    (valueOf(key).equals(value) ? answered : wrong).incrementAndGet();
                } catch (Exception error) {
                    System.err.println(key + ": " + error);
                }
            });
        }
        threads.shutdown();
        threads.awaitTermination(60, TimeUnit.SECONDS);
        System.out.println(answered + " " + wrong + " " + (openFiles() - files));
        System.exit(answered.get() == operations ? 0 : 1);
    }
}

/*
 * A new connection for every operation, by one of Java's clients or by what they are made of.
 * Usage: Newest CLIENT, one of main()'s. Ends with the line ANSWERED WRONG FDS.
 */

import com.spotify.folsom.BinaryMemcacheClient;
import com.spotify.folsom.AsciiMemcacheClient;
import com.spotify.folsom.MemcacheClient;
import com.spotify.folsom.MemcacheClientBuilder;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import net.rubyeye.xmemcached.XMemcachedClientBuilder;
import net.rubyeye.xmemcached.command.BinaryCommandFactory;
import net.rubyeye.xmemcached.command.TextCommandFactory;
import net.spy.memcached.ConnectionFactoryBuilder;
import net.spy.memcached.MemcachedClient;

public class Newest {
    interface Lookup {
        String of(String key) throws Exception;
    }

    static final String[] SERVER = System.getenv("APP_SERVER").split(":");
    static final String HOST = SERVER[0];
    static final int PORT = Integer.parseInt(SERVER[1]);

    static String valueOf(String key) {
        return "value-of-" + key;
    }

    static byte[] request(String key) {
        String value = valueOf(key);
        return String.format("set %s 0 0 %d\r\n%s\r\nget %s\r\n", key, value.length(), value, key)
            .getBytes();
    }

    /* Amazon's client has the same classes, and one mode more, which asks for a configuration. */
    static String withSpy(String key, ConnectionFactoryBuilder builder) throws Exception {
        try {
            Class<?> mode = Class.forName("net.spy.memcached.ClientMode");
            builder.getClass().getMethod("setClientMode", mode)
                .invoke(builder, mode.getField("Static").get(null));
        } catch (ClassNotFoundException plain) {
        }
        MemcachedClient client = new MemcachedClient(
            builder.setOpTimeout(10000).build(), List.of(new InetSocketAddress(HOST, PORT)));
        try {
            client.set(key, 60, valueOf(key)).get();
            return (String) client.get(key);
        } finally {
            client.shutdown(5, TimeUnit.SECONDS);
        }
    }

    static String withXmemcached(String key, boolean binary) throws Exception {
        var builder = new XMemcachedClientBuilder(HOST + ":" + PORT);
        builder.setCommandFactory(binary ? new BinaryCommandFactory() : new TextCommandFactory());
        builder.setOpTimeout(10000);
        var client = builder.build();
        try {
            client.set(key, 60, valueOf(key));
            return client.get(key);
        } finally {
            client.shutdown();
        }
    }

    static String withFolsom(String key, boolean binary) throws Exception {
        var builder = MemcacheClientBuilder.newStringClient().withAddress(HOST, PORT)
            .withRequestTimeoutMillis(10000);
        MemcacheClient<String> client;
        if (binary) {
            BinaryMemcacheClient<String> one = builder.connectBinary();
            client = one;
        } else {
            AsciiMemcacheClient<String> one = builder.connectAscii();
            client = one;
        }
        client.awaitConnected(10, TimeUnit.SECONDS);
        try {
            client.set(key, valueOf(key), 60).toCompletableFuture().get();
            return client.get(key).toCompletableFuture().get();
        } finally {
            client.shutdown();
            client.awaitDisconnected(10, TimeUnit.SECONDS);
        }
    }

    static String withSocket(String key) throws IOException {
        try (Socket socket = new Socket(HOST, PORT)) {
            socket.setTcpNoDelay(true);
            socket.getOutputStream().write(request(key));
            var answers = new BufferedReader(new InputStreamReader(socket.getInputStream()));
            answers.readLine();
            answers.readLine();
            String found = answers.readLine();
            answers.readLine();
            return found;
        }
    }

    /* A selector that is told when the connection is there, and then when there is something. */
    static String withNio(String key) throws IOException {
        try (Selector selector = Selector.open(); SocketChannel channel = SocketChannel.open()) {
            channel.configureBlocking(false);
            SelectionKey chosen = channel.register(selector, SelectionKey.OP_CONNECT);
            if (channel.connect(new InetSocketAddress(HOST, PORT)))
                throw new IOException("a connection at once");
            selector.select(10000);
            if (!chosen.isConnectable() || !channel.finishConnect())
                throw new IOException("no connection");
            channel.write(ByteBuffer.wrap(request(key)));
            chosen.interestOps(SelectionKey.OP_READ);
            ByteBuffer answer = ByteBuffer.allocate(1000);
            String text = "";
            while (!text.endsWith("END\r\n")) {
                selector.selectedKeys().clear();
                if (selector.select(10000) == 0 || channel.read(answer) < 0)
                    throw new IOException("no answer");
                text = new String(answer.array(), 0, answer.position());
            }
            return text.split("\r\n")[2];
        }
    }

    static int openFiles() {
        return new File("/proc/self/fd").list().length;
    }

    /* Java 21 has these, and this is compiled for 17. */
    static ExecutorService virtualThreads() throws Exception {
        return (ExecutorService) Executors.class.getMethod("newVirtualThreadPerTaskExecutor")
            .invoke(null);
    }

    public static void main(String[] arguments) throws Exception {
        Lookup lookup = switch (arguments[0]) {
            case "spy" -> key -> withSpy(key, new ConnectionFactoryBuilder()
                .setProtocol(ConnectionFactoryBuilder.Protocol.TEXT));
            case "spy-binary" -> key -> withSpy(key, new ConnectionFactoryBuilder()
                .setProtocol(ConnectionFactoryBuilder.Protocol.BINARY));
            case "xmemcached" -> key -> withXmemcached(key, false);
            case "xmemcached-binary" -> key -> withXmemcached(key, true);
            case "folsom" -> key -> withFolsom(key, false);
            case "folsom-binary" -> key -> withFolsom(key, true);
            case "nio" -> Newest::withNio;
            case "socket", "virtual" -> Newest::withSocket;
            default -> throw new IllegalArgumentException(arguments[0]);
        };
        int operations = Integer.parseInt(System.getenv("APP_OPERATIONS"));
        int concurrency = Integer.parseInt(System.getenv("APP_CONCURRENCY"));
        AtomicInteger answered = new AtomicInteger();
        AtomicInteger wrong = new AtomicInteger();
        int files = openFiles();
        ExecutorService threads = arguments[0].equals("virtual")
            ? virtualThreads() : Executors.newFixedThreadPool(concurrency);
        Semaphore places = new Semaphore(concurrency);
        for (int number = 0; number < operations; number++) {
            String key = "key-" + number;
            places.acquire();
            threads.submit(() -> {
                try {
                    String value = lookup.of(key);
                    (valueOf(key).equals(value) ? answered : wrong).incrementAndGet();
                } catch (Throwable error) {
                    System.err.println(key + ": " + error);
                } finally {
                    places.release();
                }
            });
        }
        threads.shutdown();
        threads.awaitTermination(60, TimeUnit.SECONDS);
        System.out.println(answered + " " + wrong + " " + (openFiles() - files));
        System.exit(answered.get() == operations ? 0 : 1);
    }
}

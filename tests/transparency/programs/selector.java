// A selector that learns from OP_CONNECT, and from nothing else, that it is connected.

import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;

class Program {
    static final int TURNS = 5;
    static final int PATIENCE = 20; // times 50 ms

    // Whether the channel becomes ready for what its key asks for.
    static boolean ready(Selector selector) throws Exception {
        for (int i = 0; i < PATIENCE; i++) {
            if (selector.select(50) > 0) {
                selector.selectedKeys().clear();
                return true;
            }
        }
        return false;
    }

    static String get(SocketChannel channel, Selector selector, SelectionKey key) throws Exception {
        ByteBuffer answer = ByteBuffer.allocate(4096);

        channel.write(ByteBuffer.wrap("get one\r\n".getBytes()));
        key.interestOps(SelectionKey.OP_READ);
        while (true) {
            String text = new String(answer.array(), 0, answer.position(), StandardCharsets.US_ASCII);
            if (text.endsWith("END\r\n") || !ready(selector) || channel.read(answer) < 0)
                return text.replace("\r\n", "|");
        }
    }

    public static void main(String[] arguments) throws Exception {
        InetSocketAddress server = new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0]));

        for (int turn = 0; turn < TURNS; turn++) {
            try (Selector selector = Selector.open(); SocketChannel channel = SocketChannel.open()) {
                channel.configureBlocking(false);
                SelectionKey key = channel.register(selector, SelectionKey.OP_CONNECT);
                System.out.println("connected at once: " + channel.connect(server));
                System.out.println("ready: " + ready(selector));
                System.out.println("connected: " + channel.isConnected() + " " + channel.finishConnect());
                System.out.println(get(channel, selector, key));
                channel.register(selector, 0);
            }
        }
    }
}

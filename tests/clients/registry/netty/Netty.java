/*
 * A new channel of Netty for every operation. Usage: Netty nio|epoll|io_uring, its transports.
 * Ends with the line ANSWERED WRONG FDS.
 */

import io.netty.bootstrap.Bootstrap;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.IoHandlerFactory;
import io.netty.channel.MultiThreadIoEventLoopGroup;
import io.netty.channel.epoll.EpollIoHandler;
import io.netty.channel.epoll.EpollSocketChannel;
import io.netty.channel.nio.NioIoHandler;
import io.netty.channel.socket.nio.NioSocketChannel;
import io.netty.channel.uring.IoUringIoHandler;
import io.netty.channel.uring.IoUringSocketChannel;
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

public class Netty {
    static final String[] SERVER = System.getenv("APP_SERVER").split(":");

    static String valueOf(String key) {
        return "value-of-" + key;
    }

    /* Asks when the channel is there, and closes it behind the answer. */
    static class Dialogue extends ChannelInboundHandlerAdapter {
        final String key;
        final CompletableFuture<String> found = new CompletableFuture<>();
        final StringBuilder answer = new StringBuilder();

        Dialogue(String key) {
            this.key = key;
        }

        @Override
        public void channelActive(ChannelHandlerContext context) {
            String value = valueOf(key);
            context.writeAndFlush(Unpooled.copiedBuffer(String.format(
                "set %s 0 0 %d\r\n%s\r\nget %s\r\n", key, value.length(), value, key),
                StandardCharsets.US_ASCII));
        }

        @Override
        public void channelRead(ChannelHandlerContext context, Object message) {
            ByteBuf bytes = (ByteBuf) message;
            answer.append(bytes.toString(StandardCharsets.US_ASCII));
            bytes.release();
            if (answer.toString().endsWith("END\r\n"))
                context.close();
        }

        @Override
        public void channelInactive(ChannelHandlerContext context) {
            String[] lines = answer.toString().split("\r\n");
            found.complete(lines.length > 2 ? lines[2] : "nothing");
        }

        @Override
        public void exceptionCaught(ChannelHandlerContext context, Throwable error) {
            found.completeExceptionally(error);
            context.close();
        }
    }

    static int openFiles() {
        return new File("/proc/self/fd").list().length;
    }

    public static void main(String[] arguments) throws Exception {
        IoHandlerFactory handler;
        Class<? extends Channel> kind;
        switch (arguments[0]) {
            case "nio" -> {
                handler = NioIoHandler.newFactory();
                kind = NioSocketChannel.class;
            }
            case "epoll" -> {
                handler = EpollIoHandler.newFactory();
                kind = EpollSocketChannel.class;
            }
            default -> {
                handler = IoUringIoHandler.newFactory();
                kind = IoUringSocketChannel.class;
            }
        }
        int operations = Integer.parseInt(System.getenv("APP_OPERATIONS"));
        Semaphore places = new Semaphore(Integer.parseInt(System.getenv("APP_CONCURRENCY")));
        AtomicInteger answered = new AtomicInteger();
        AtomicInteger wrong = new AtomicInteger();
        CompletableFuture<?>[] all = new CompletableFuture<?>[operations];
        var loops = new MultiThreadIoEventLoopGroup(2, handler);
        int files = openFiles();
        for (int number = 0; number < operations; number++) {
            String key = "key-" + number;
            Dialogue dialogue = new Dialogue(key);
            places.acquire();
            all[number] = dialogue.found.handle((value, error) -> {
                places.release();
                if (error != null)
                    System.err.println(key + ": " + error);
                else
                    (valueOf(key).equals(value) ? answered : wrong).incrementAndGet();
                return null;
            });
            new Bootstrap().group(loops).channel(kind).handler(new ChannelInitializer<Channel>() {
                @Override
                protected void initChannel(Channel channel) {
                    channel.pipeline().addLast(dialogue);
                }
            }).connect(SERVER[0], Integer.parseInt(SERVER[1])).addListener(connected -> {
                if (!connected.isSuccess())
                    dialogue.found.completeExceptionally(connected.cause());
            });
        }
        CompletableFuture.allOf(all).get(60, TimeUnit.SECONDS);
        System.out.println(answered + " " + wrong + " " + (openFiles() - files));
        System.exit(answered.get() == operations ? 0 : 1);
    }
}

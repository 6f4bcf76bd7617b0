// A client in C within a program in Go, which duplicates the connection by a system call of its own:
// duplicates PORT. Prints what the duplicate of a closed connection has of the next user's reply.
package main

/*
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int dial(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 ? fd : -1;
}

static int ask(int fd)
{
    return send(fd, "get a\r\n", 7, 0) == 7 && poll(&(struct pollfd){fd, POLLIN, 0}, 1, 1000) == 1;
}

static int answer(int fd)
{
    char text[5];

    return recv(fd, text, 5, MSG_WAITALL) == 5 && memcmp(text, "END\r\n", 5) == 0;
}
*/
import "C"

import (
	"os"
	"syscall"
)

func say(text string) {
	os.Stdout.WriteString(text + "\n")
}

func main() {
	port := 0
	for _, digit := range os.Args[1] {
		port = 10*port + int(digit-'0')
	}
	for i := 0; i < 30; i++ {
		fd := C.dial(C.int(port))
		if C.ask(fd) == 0 || C.answer(fd) == 0 {
			say("no answer")
		}
		copy, err := syscall.Dup(int(fd))
		if err != nil {
			say(err.Error())
		}
		C.close(fd)
		fd = C.dial(C.int(port))
		C.ask(fd)
		bytes := make([]byte, 64)
		n, _, _ := syscall.Recvfrom(copy, bytes, syscall.MSG_DONTWAIT)
		if n > 0 {
			say("the duplicate has another user's " + string(bytes[:n]))
		} else if C.answer(fd) == 0 {
			say("the second user has no answer")
		}
		C.close(fd)
		syscall.Close(copy)
	}
	say("done")
}

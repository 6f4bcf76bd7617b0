/*
 * POSIX asynchronous I/O on a file, by each of its functions: asynchronous FILE.
 */
#include <aio.h>
#include <fcntl.h>
#include <stdio.h>

static char bytes[] = "12345678";

static long end_of(struct aiocb *block)
{
    const struct aiocb *list[] = {block};

    while (aio_suspend(list, 1, NULL) != 0 || aio_error(block) != 0)
        ;
    return aio_return(block);
}

int main(int argc, char **argv)
{
    int fd = argc == 2 ? open(argv[1], O_RDWR | O_CREAT, 0600) : -1;
    long done[2][4];

    for (int i = 0; i < 8; i++) {
        struct aiocb block = {.aio_fildes = fd,
                              .aio_lio_opcode = i < 4 ? LIO_WRITE : LIO_READ,
                              .aio_buf = bytes,
                              .aio_nbytes = 8};
        struct aiocb *list[] = {&block};
        int begun;

        if (i % 4 == 0)
            begun = i < 4 ? aio_write(&block) : aio_read(&block);
        else if (i % 4 == 1)
            begun = i < 4 ? aio_write64((struct aiocb64 *)&block)
                          : aio_read64((struct aiocb64 *)&block);
        else if (i % 4 == 2)
            begun = lio_listio(LIO_WAIT, list, 1, NULL);
        else
            begun = lio_listio64(LIO_WAIT, (struct aiocb64 **)list, 1, NULL);
        if (begun != 0)
            return 1;
        done[i / 4][i % 4] = end_of(&block);
    }
    printf("written %ld %ld %ld %ld, read %ld %ld %ld %ld\n", done[0][0], done[0][1],
           done[0][2], done[0][3], done[1][0], done[1][1], done[1][2], done[1][3]);
    return 0;
}
